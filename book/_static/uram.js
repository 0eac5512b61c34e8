/* RAM and the unified model (paper Algorithm 1) in testing: glimpses by the mean policy, from a start that is given or
   that the Q-network chooses.

   The functions do what their namesakes in uram_lib/models and uram_lib/glimpse.py do, for one grey image, without
   batches or gradients; tests/test_live.py compares them with PyTorch. An image is a flat array of side * side values
   in [0, 1], row by row. Weights are single precision, sums double. */
"use strict";

const Uram = (() => {
  const relu = (x) => x.map((value) => Math.max(value, 0));
  const sigmoid = (x) => 1 / (1 + Math.exp(-x));
  const argmax = (x) => x.indexOf(Math.max(...x));

  function softmax(logits) {
    const highest = Math.max(...logits);
    const powers = logits.map((value) => Math.exp(value - highest));
    const total = powers.reduce((sum, value) => sum + value, 0);
    return powers.map((value) => value / total);
  }

  /* matrix: outputs * inputs values, row by row. Returns matrix x. */
  function multiply(matrix, x) {
    const made = new Array(matrix.length / x.length);
    for (let row = 0, at = 0; row < made.length; row++) {
      let total = 0;
      for (let i = 0; i < x.length; i++) total += matrix[at++] * x[i];
      made[row] = total;
    }
    return made;
  }

  /* exported: {config, weights: {name: {at, size}}, data: little-endian floats in base64}, as live.py writes it.
     Returns the model: its `config`, and its weights by their names in PyTorch; `linear` is an nn.Linear. */
  function load(exported) {
    const bytes = Uint8Array.from(atob(exported.data), (letter) => letter.charCodeAt(0));
    const floats = new Float32Array(bytes.buffer);
    const get = (name) => {
      const { at, size } = exported.weights[name];
      return floats.subarray(at, at + size);
    };
    const linear = (name, x) => {
      const bias = get(`${name}.bias`);
      return multiply(get(`${name}.weight`), x).map((value, i) => value + bias[i]);
    };
    return { config: exported.config, get, linear };
  }

  /* One step of the image pyramid: each pixel the mean of 2 x 2. */
  function halve(image, side) {
    const half = side / 2;
    return Float64Array.from({ length: half * half }, (_, i) => {
      const corner = 2 * Math.floor(i / half) * side + 2 * (i % half);
      return (image[corner] + image[corner + 1] + image[corner + side] + image[corner + side + 1]) / 4;
    });
  }

  /* v_1 ... v_n of paper Eq. 6, concatenated: the mean over each region of ReLU(3 x 3 convolution). */
  function regionVectors(model, image, side, regions) {
    const name = "topdown.online.convolution";
    const [kernels, biases] = [model.get(`${name}.weight`), model.get(`${name}.bias`)];
    const features = biases.length;
    const vectors = new Float64Array(regions * regions * features);
    const counts = new Float64Array(regions * regions);
    const seen = new Float64Array(9);
    for (let y = 0; y < side; y++) {
      for (let x = 0; x < side; x++) {
        const region = regions * Math.floor(y * regions / side) + Math.floor(x * regions / side);
        counts[region] += 1;
        for (let i = 0; i < 9; i++) {
          const [u, v] = [x + (i % 3) - 1, y + Math.floor(i / 3) - 1];
          seen[i] = u < 0 || v < 0 || u >= side || v >= side ? 0 : image[v * side + u];
        }
        for (let n = 0; n < features; n++) {
          let total = biases[n];
          for (let i = 0; i < 9; i++) total += kernels[9 * n + i] * seen[i];
          if (total > 0) vectors[region * features + n] += total;
        }
      }
    }
    return Array.from(vectors, (value, i) => value / counts[Math.floor(i / features)]);
  }

  /* Q(s, a; theta_q) of the regions, row by row (paper Eq. 7), from the image at half resolution. */
  function qValues(model, image, side) {
    return model.linear("topdown.online.values", regionVectors(model, image, side, model.config.regions));
  }

  /* The mean of the image over a box of side x side pixels: a pixel counts with the area that the box covers, and
     outside the image lies black. */
  function boxMean(image, width, left, top, side) {
    let total = 0;
    for (let y = Math.max(Math.floor(top), 0); y < Math.min(top + side, width); y++) {
      const height = Math.min(y + 1, top + side) - Math.max(y, top);
      for (let x = Math.max(Math.floor(left), 0); x < Math.min(left + side, width); x++) {
        total += height * (Math.min(x + 1, left + side) - Math.max(x, left)) * image[y * width + x];
      }
    }
    return total / (side * side);
  }

  /* The glimpse sensor: for each scale k, size x size means over boxes of 2**k pixels around a location. */
  function sensor(image, width, location, size, scales) {
    const centre = location.map((value) => (value + 1) / 2 * width);
    return Array.from({ length: scales }, (_, k) => {
      const side = 2 ** k;
      const [left, top] = centre.map((value) => value - size / 2 * side);
      return Float64Array.from({ length: size * size }, (_, i) =>
        boxMean(image, width, left + (i % size) * side, top + Math.floor(i / size) * side, side));
    });
  }

  /* G_t of paper Eq. 10a, from the standardised patches and the location. own: the prefix of RAM's weights. */
  function glimpseNetwork(model, own, patches, location) {
    const [means, stds] = [model.get(`${own}patch_mean`), model.get(`${own}patch_std`)];
    const standardised = patches.flatMap((patch, k) => Array.from(patch, (value) => (value - means[k]) / stds[k]));
    const what = relu(model.linear(`${own}glimpse_network.patch`, standardised));
    const where = relu(model.linear(`${own}glimpse_network.location`, location));
    return relu(model.linear(`${own}glimpse_network.combine`, [...what, ...where]));
  }

  /* H_t of paper Eq. 10b and the next state, {hidden, memory}; `memory` is of the LSTM alone. */
  const cores = {
    relu(model, own, glimpse, { hidden }) {
      const kept = multiply(model.get(`${own}core.from_hidden`), hidden);
      return { hidden: relu(model.linear(`${own}core.from_glimpse`, glimpse).map((value, i) => value + kept[i])) };
    },
    lstm(model, own, glimpse, { hidden, memory }) {
      const input = multiply(model.get(`${own}core.cell.weight_ih`), glimpse);
      const recurrent = multiply(model.get(`${own}core.cell.weight_hh`), hidden);
      const [b, c] = [model.get(`${own}core.cell.bias_ih`), model.get(`${own}core.cell.bias_hh`)];
      const gates = input.map((value, i) => value + recurrent[i] + b[i] + c[i]);
      const size = hidden.length;
      const [i, f, g, o] = [0, 1, 2, 3].map((n) => gates.slice(n * size, (n + 1) * size));
      const next = memory.map((value, n) => sigmoid(f[n]) * value + sigmoid(i[n]) * Math.tanh(g[n]));
      return { hidden: next.map((value, n) => sigmoid(o[n]) * Math.tanh(value)), memory: next };
    },
  };

  /* One image through a model. draw: [x, y] in [0, 1), the place of L_0 in the chosen region, or, for plain RAM, in
     the image. Returns {values, action, glimpses: [{location, patches, logits}]}; locations are [x, y] in
     [-1, 1], and `values` and `action` are null for plain RAM. */
  function run(model, image, draw) {
    const { kind, side, glimpses, patch_size: size, scales, core, region_start: where, regions } = model.config;
    let [values, action, location] = [null, null, draw.map((value) => 2 * value - 1)];
    if (kind === "unified") {
      values = qValues(model, halve(image, side), side / 2);
      action = argmax(values);
      const place = where === "centre" ? [0.5, 0.5] : draw;
      const cell = [action % regions, Math.floor(action / regions)];
      location = cell.map((step, axis) => 2 / regions * (step + place[axis]) - 1);
    }
    const own = kind === "unified" ? "ram." : "";
    const zeros = new Array(model.config.hidden).fill(0);
    let state = { hidden: zeros, memory: zeros };
    const seen = [];
    for (let t = 0; t < glimpses; t++) {
      const patches = sensor(image, side, location, size, scales);
      state = cores[core](model, own, glimpseNetwork(model, own, patches, location), state);
      seen.push({ location, patches, logits: model.linear(`${own}classifier`, state.hidden) });
      const mean = model.linear(`${own}location_network`, state.hidden);
      location = model.config.bounded_mean ? mean.map(Math.tanh) : mean.map((l) => Math.min(Math.max(l, -1), 1));
    }
    return { values, action, glimpses: seen };
  }

  return { load, run, argmax, softmax };
})();
