/* The unified model (Algorithm 1) in testing: the Q-network chooses a quadrant, then RAM glimpses by its mean policy.

   The functions do what their namesakes in uram_lib/models and uram_lib/glimpse.py do, for one grey image, without
   batches or gradients; tests/test_live.py holds them against PyTorch. An image is a flat array of side * side values
   in [0, 1], row by row. Weights are single precision, sums double. */
"use strict";

const Uram = (() => {
  const OFFSETS = [-1, 0, 1].flatMap((dy) => [-1, 0, 1].map((dx) => [dx, dy])); // of a 3 x 3 convolution

  const relu = (x) => x.map((value) => Math.max(value, 0));
  const sigmoid = (x) => 1 / (1 + Math.exp(-x));
  const sum = (x) => x.reduce((total, value) => total + value, 0);
  const argmax = (x) => x.indexOf(Math.max(...x));

  function softmax(logits) {
    const highest = Math.max(...logits);
    const powers = logits.map((value) => Math.exp(value - highest));
    return powers.map((value) => value / sum(powers));
  }

  /* matrix: outputs * inputs values, row by row. Returns matrix x. */
  function multiply(matrix, x) {
    return Array.from({ length: matrix.length / x.length }, (_, row) => {
      let total = 0;
      for (let i = 0; i < x.length; i++) total += matrix[row * x.length + i] * x[i];
      return total;
    });
  }

  /* exported: {config, weights: {name: {at, size}}, data: little-endian floats in base64}, as live.py writes it.
     Returns the model: its `config`, and its weights by their names in PyTorch; `linear` is an nn.Linear. */
  function load(exported) {
    const bytes = Uint8Array.from(atob(exported.data), (letter) => letter.charCodeAt(0));
    const floats = new Float32Array(bytes.buffer);
    const has = (name) => name in exported.weights;
    const get = (name) => {
      const { at, size } = exported.weights[name];
      return floats.subarray(at, at + size);
    };
    const linear = (name, x) => {
      const bias = get(`${name}.bias`);
      return multiply(get(`${name}.weight`), x).map((value, i) => value + bias[i]);
    };
    return { config: exported.config, has, get, linear };
  }

  /* One step of the image pyramid: each pixel the mean of 2 x 2. */
  function halve(image, side) {
    const half = side / 2;
    return Float64Array.from({ length: half * half }, (_, i) => {
      const corner = 2 * Math.floor(i / half) * side + 2 * (i % half);
      return (image[corner] + image[corner + 1] + image[corner + side] + image[corner + side + 1]) / 4;
    });
  }

  /* v_1 ... v_4 of Eq. 6, concatenated: the mean over each quadrant of ReLU(3 x 3 convolution). */
  function regionVectors(model, image, side) {
    const name = "topdown.online.convolution";
    const [kernels, biases] = [model.get(`${name}.weight`), model.get(`${name}.bias`)];
    const pixel = (x, y) => (x < 0 || y < 0 || x >= side || y >= side ? 0 : image[y * side + x]);
    const features = biases.length;
    const half = side / 2;
    const vectors = new Array(4 * features).fill(0);
    for (let y = 0; y < side; y++) {
      for (let x = 0; x < side; x++) {
        const region = 2 * (y >= half) + (x >= half);
        const seen = OFFSETS.map(([dx, dy]) => pixel(x + dx, y + dy));
        multiply(kernels, seen).forEach((value, n) => {
          vectors[region * features + n] += Math.max(value + biases[n], 0) / (half * half);
        });
      }
    }
    return vectors;
  }

  /* Q(s, a; theta_q) of the four quadrants, row by row (Eq. 7), from the image at half resolution. */
  function qValues(model, image, side) {
    const state = regionVectors(model, image, side);
    if (model.has("topdown.online.values.weight")) return model.linear("topdown.online.values", state);
    return model.linear("topdown.online.values.2", relu(model.linear("topdown.online.values.0", state)));
  }

  /* The mean of the image over a box of side x side pixels: a pixel counts with the area that the box covers, and
     outside the image lies black. */
  function boxMean(image, width, left, top, side) {
    const covered = (i, start) => Math.min(i + 1, start + side) - Math.max(i, start);
    let total = 0;
    for (let y = Math.max(Math.floor(top), 0); y < Math.min(top + side, width); y++) {
      for (let x = Math.max(Math.floor(left), 0); x < Math.min(left + side, width); x++) {
        total += covered(y, top) * covered(x, left) * image[y * width + x];
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

  /* G_t of Eq. 10a, from the standardised patches and the location. */
  function glimpseNetwork(model, patches, location) {
    const [means, stds] = [model.get("ram.patch_mean"), model.get("ram.patch_std")];
    const standardised = patches.flatMap((patch, k) => Array.from(patch, (value) => (value - means[k]) / stds[k]));
    const what = relu(model.linear("ram.glimpse_network.patch", standardised));
    const where = relu(model.linear("ram.glimpse_network.location", location));
    return relu(model.linear("ram.glimpse_network.combine", [...what, ...where]));
  }

  /* H_t of Eq. 10b and the next state, {hidden, memory}; `memory` is of the LSTM alone. */
  const cores = {
    relu(model, glimpse, { hidden }) {
      const remembered = multiply(model.get("ram.core.from_hidden"), hidden);
      return { hidden: relu(model.linear("ram.core.from_glimpse", glimpse).map((value, i) => value + remembered[i])) };
    },
    lstm(model, glimpse, { hidden, memory }) {
      const input = multiply(model.get("ram.core.cell.weight_ih"), glimpse);
      const recurrent = multiply(model.get("ram.core.cell.weight_hh"), hidden);
      const [b, c] = [model.get("ram.core.cell.bias_ih"), model.get("ram.core.cell.bias_hh")];
      const gates = input.map((value, i) => value + recurrent[i] + b[i] + c[i]);
      const size = hidden.length;
      const [i, f, g, o] = [0, 1, 2, 3].map((n) => gates.slice(n * size, (n + 1) * size));
      const next = memory.map((value, n) => sigmoid(f[n]) * value + sigmoid(i[n]) * Math.tanh(g[n]));
      return { hidden: next.map((value, n) => sigmoid(o[n]) * Math.tanh(value)), memory: next };
    },
  };

  /* One image through the model. within: [x, y] in [0, 1), the place of L_0 in the chosen quadrant.
     Returns {values, action, start, glimpses: [{location, patches, logits}]}; locations are [x, y] in [-1, 1]. */
  function run(model, image, within) {
    const { side, glimpses, patch_size: size, scales, core, region_start: where } = model.config;
    const values = qValues(model, halve(image, side), side / 2);
    const action = argmax(values);
    const place = where === "centre" ? [0.5, 0.5] : within;
    let location = [action % 2, Math.floor(action / 2)].map((step, axis) => step - 1 + place[axis]);
    const zeros = new Array(model.config.hidden).fill(0);
    let state = { hidden: zeros, memory: zeros };
    const seen = [];
    for (let t = 0; t < glimpses; t++) {
      const patches = sensor(image, side, location, size, scales);
      state = cores[core](model, glimpseNetwork(model, patches, location), state);
      seen.push({ location, patches, logits: model.linear("ram.classifier", state.hidden) });
      location = model.linear("ram.location_network", state.hidden).map(Math.tanh);
    }
    return { values, action, start: seen[0].location, glimpses: seen };
  }

  return { load, run, halve, argmax, softmax };
})();
