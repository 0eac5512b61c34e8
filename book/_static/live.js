/* The live page: an image is chosen or drawn, `Uram.run` computes everything at once, and steps reveal it. */
"use strict";

(() => {
  const SIDE = 100; // of the canvas, in pixels
  const FRAME = 28; // of a digit
  const BOX = 20; // that MNIST's digits were scaled into
  const PEN = 2.4; // width of a stroke in the frame
  const PIECE = 8; // of clutter
  const PAUSE_MS = 900; // between the steps of a run
  const REGIONS = ["top left", "top right", "bottom left", "bottom right"];
  const [ORANGE, SKY, GREEN] = ["#E69F00", "#56B4E9", "#009E73"];

  const element = (tag, properties, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };
  const at = (name) => document.getElementById(`live-${name}`);
  if (typeof uramModel === "undefined" || typeof uramImages === "undefined") return;
  at("missing").hidden = true;
  document.getElementById("live").hidden = false;

  const model = Uram.load(uramModel);
  const { glimpses, scales, patch_size: size } = model.config;
  const bytes = Uint8Array.from(atob(uramImages.data), (letter) => letter.charCodeAt(0));
  const tests = Array.from({ length: uramImages.count }, (_, i) => ({
    name: `Test image ${i + 1}, a ${uramImages.labels[i]}`,
    image: Float64Array.from(bytes.subarray(i * SIDE * SIDE, (i + 1) * SIDE * SIDE), (value) => value / 255),
    label: uramImages.labels[i],
    centre: uramImages.centres[i],
  }));

  let scene = tests[0]; // what is looked at: {name, image, label, centre}; no label of a drawing
  let result = null; // of Uram.run
  let shown = 0; // steps revealed: 1 is the choice of a quadrant, 1 + t the t-th glimpse
  let timer = null; // of a run
  let strokes = []; // of the drawing, lists of [x, y] in the pixels of its pad
  let pen = { x: 140, y: 140, down: false }; // of the keyboard
  const drawing = { x: 50, y: 10, clutter: [] }; // corner of the digit's frame, and the pieces

  /* ---- Images ---- */

  const whole = (limit) => Math.floor(Math.random() * limit); // uniform in 0 ... limit - 1
  const fresh = (side) => element("canvas", { width: side, height: side });

  /* Paint a square grey image with values in [0, 1] over the whole of a canvas, each value a block. */
  function paint(canvas, image) {
    const side = Math.sqrt(image.length);
    const small = fresh(side);
    const pixels = new ImageData(side, side);
    image.forEach((value, i) => pixels.data.set([255 * value, 255 * value, 255 * value, 255], 4 * i));
    small.getContext("2d").putImageData(pixels, 0, 0);
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
    return context;
  }

  /* Draw strokes, white and round. */
  function ink(context, lines, width) {
    Object.assign(context, { strokeStyle: "white", lineWidth: width, lineCap: "round", lineJoin: "round" });
    for (const line of lines) {
      context.beginPath();
      context.moveTo(...line[0]);
      line.forEach((point) => context.lineTo(...point));
      context.stroke();
    }
  }

  /* The drawing as MNIST was made: scaled into BOX x BOX keeping its shape, its centre of mass in the middle of FRAME x
     FRAME, to a whole pixel. Values in [0, 1], row by row. */
  function mnistDigit(lines) {
    const [xs, ys] = [0, 1].map((axis) => lines.flat().map((point) => point[axis]));
    const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const scale = (BOX - PEN) / Math.max(right - left, bottom - top, 1);
    const painted = (dx, dy) => {
      const context = fresh(FRAME).getContext("2d");
      const place = ([x, y]) => [(x - (left + right) / 2) * scale + dx, (y - (top + bottom) / 2) * scale + dy];
      ink(context, lines.map((line) => line.map(place)), PEN);
      const { data } = context.getImageData(0, 0, FRAME, FRAME);
      return Float64Array.from({ length: FRAME * FRAME }, (_, i) => data[4 * i + 3] / 255); // white on nothing: opacity
    };
    const middle = FRAME / 2;
    const first = painted(middle, middle);
    const moment = (coordinate) => first.reduce((sum, value, i) => sum + value * (coordinate(i) + 0.5), 0);
    const mass = first.reduce((sum, value) => sum + value, 0);
    const [x, y] = [moment((i) => i % FRAME) / mass, moment((i) => Math.floor(i / FRAME)) / mass];
    return painted(middle + Math.round(middle - x), middle + Math.round(middle - y));
  }

  /* Add a piece of one image to another, up to white. */
  function add(target, x, y, source, width, left, top, side) {
    for (let i = 0; i < side; i++) {
      for (let j = 0; j < side; j++) {
        const to = (y + i) * SIDE + x + j;
        target[to] = Math.min(target[to] + source[(top + i) * width + left + j], 1);
      }
    }
  }

  /* Another place of the digit and other clutter: windows at random places of the test digits' frames. */
  function shuffle() {
    Object.assign(drawing, { x: whole(SIDE - FRAME + 1), y: whole(SIDE - FRAME + 1) });
    drawing.clutter = Array.from({ length: Number(at("pieces").max) }, () => {
      const from = tests[whole(tests.length)];
      const [left, top] = from.centre.map((value) => value - FRAME / 2 + whole(FRAME - PIECE + 1));
      return { image: from.image, left, top, x: whole(SIDE - PIECE + 1), y: whole(SIDE - PIECE + 1) };
    });
    [at("x").value, at("y").value] = [drawing.x, drawing.y];
  }

  function drawnScene() {
    const image = new Float64Array(SIDE * SIDE);
    if (strokes.length) add(image, drawing.x, drawing.y, mnistDigit(strokes), FRAME, 0, 0, FRAME);
    for (const piece of drawing.clutter.slice(0, Number(at("pieces").value))) {
      add(image, piece.x, piece.y, piece.image, SIDE, piece.left, piece.top, PIECE);
    }
    const name = strokes.length ? "Your drawing" : "Nothing is drawn yet";
    return { name, image, label: null, centre: [drawing.x + FRAME / 2, drawing.y + FRAME / 2] };
  }

  /* ---- What is shown ---- */

  const pixel = (location) => location.map((value) => (value + 1) / 2 * SIDE);
  const percent = (share) => `${Math.round(100 * share)} %`;

  function showStage() {
    const context = paint(at("stage"), scene.image);
    const unit = at("stage").width / SIDE;
    if (shown >= 1) {
      const [left, top] = [result.action % 2, Math.floor(result.action / 2)].map((step) => step * SIDE / 2);
      Object.assign(context, { strokeStyle: GREEN, lineWidth: 4 });
      context.strokeRect(left * unit + 2, top * unit + 2, SIDE / 2 * unit - 4, SIDE / 2 * unit - 4);
    }
    const path = result.glimpses.slice(0, Math.max(shown - 1, 0)).map((glimpse) => pixel(glimpse.location));
    if (path.length) {
      const [x, y] = path.at(-1);
      Object.assign(context, { strokeStyle: SKY, lineWidth: 3 });
      for (let k = 0; k < scales; k++) {
        const side = size * 2 ** k;
        context.strokeRect((x - side / 2) * unit, (y - side / 2) * unit, side * unit, side * unit);
      }
    }
    Object.assign(context, { strokeStyle: ORANGE, fillStyle: ORANGE, lineWidth: 3, font: "bold 22px sans-serif" });
    context.beginPath();
    path.forEach(([x, y]) => context.lineTo(x * unit, y * unit));
    context.stroke();
    path.forEach(([x, y], t) => {
      context.beginPath();
      context.arc(x * unit, y * unit, 5, 0, 2 * Math.PI);
      context.fill();
      const label = [t + 1, x * unit + (x > SIDE - 5 ? -20 : 8), y * unit + (y < 5 ? 24 : -8)]; // never beyond an edge
      context.strokeStyle = "black";
      context.strokeText(...label);
      context.fillText(...label);
    });
    const places = path.map(([x, y], t) => `glimpse ${t + 1} at ${x.toFixed(0)}, ${y.toFixed(0)} px`);
    at("stage").setAttribute("aria-label", [scene.name, ...places].join("; "));
  }

  function showValues() {
    paint(at("level"), Uram.halve(scene.image, SIDE));
    at("level").setAttribute("aria-label", `${scene.name}, at half resolution`);
    at("values").replaceChildren(...REGIONS.map((region, action) => {
      const chosen = shown >= 1 && action === result.action;
      const value = shown >= 1 ? `Q ${result.values[action].toFixed(3)}` : "";
      const said = shown >= 1 ? `${region}: ${value}${chosen ? ", chosen" : ""}` : region;
      return element("span", { textContent: value, className: chosen ? "chosen" : "", role: "img", ariaLabel: said });
    }));
  }

  function showPatches() {
    const black = new Float64Array(size * size);
    const present = shown >= 2 ? result.glimpses[shown - 2].patches : Array(scales).fill(black);
    at("patches").querySelectorAll("canvas").forEach((canvas, k) => paint(canvas, present[k]));
  }

  function showBars() {
    result.glimpses.forEach((glimpse, t) => {
      const chances = Uram.softmax(glimpse.logits);
      const likeliest = Uram.argmax(chances);
      chances.forEach((chance, digit) => {
        const cell = at("body").rows[digit].cells[t + 1];
        const seen = t < shown - 1;
        cell.textContent = seen ? Math.round(100 * chance) : "";
        cell.style.setProperty("--share", seen ? `${100 * chance}%` : "0%");
        cell.classList.toggle("likeliest", seen && digit === likeliest);
      });
    });
    [...at("body").rows].forEach((row, digit) => row.classList.toggle("truth", digit === scene.label));
  }

  function sentence() {
    if (shown === 0) return `${scene.name}. Step shows what the model does first.`;
    if (shown === 1) {
      const value = result.values[result.action].toFixed(3);
      return `The Q-network chooses the ${REGIONS[result.action]} quadrant, whose value ${value} is the highest.`;
    }
    const glimpse = result.glimpses[shown - 2];
    const [x, y] = pixel(glimpse.location);
    const chances = Uram.softmax(glimpse.logits);
    const answer = Uram.argmax(chances);
    const far = Math.hypot(x - scene.centre[0], y - scene.centre[1]).toFixed(0);
    const seen = `Glimpse ${shown - 1} of ${glimpses}, ${far} px from the digit's centre: `
      + `${answer} with ${percent(chances[answer])}.`;
    if (shown <= glimpses) return seen;
    const right = scene.label === answer ? ", which is right" : `; it is a ${scene.label}`;
    const verdict = scene.label === null ? "" : right;
    return `${seen} The answer is ${answer}${verdict}.`;
  }

  function show() {
    showStage();
    showValues();
    showPatches();
    showBars();
    at("status").textContent = sentence();
    at("step").disabled = at("run").disabled = shown > glimpses;
    at("run").textContent = timer ? "Pause" : "Run";
  }

  /* ---- What the reader does ---- */

  function stop() {
    clearInterval(timer);
    timer = null;
  }

  function reset() {
    stop();
    if (document.querySelector("[name=live-source]:checked").value === "drawn") scene = drawnScene();
    result = Uram.run(model, scene.image, [Math.random(), Math.random()]);
    shown = 0;
    show();
  }

  function step() {
    shown = Math.min(shown + 1, glimpses + 1);
    if (shown > glimpses) stop();
    show();
  }

  function run() {
    if (timer) {
      stop();
    } else {
      timer = setInterval(step, PAUSE_MS);
    }
    show();
  }

  function choose(source) {
    at("test").hidden = source !== "test";
    at("drawn").hidden = source !== "drawn";
    scene = tests[document.querySelector("[name=live-image]:checked").value]; // `reset` replaces it by a drawing
    reset();
  }

  /* ---- The pad ---- */

  function showPad() {
    const context = at("pad").getContext("2d");
    context.fillStyle = "black";
    context.fillRect(0, 0, at("pad").width, at("pad").height);
    ink(context, strokes, PEN / FRAME * at("pad").width);
    if (at("pad").matches(":focus-visible")) {
      Object.assign(context, { strokeStyle: pen.down ? ORANGE : SKY, lineWidth: 3 });
      context.strokeRect(pen.x - 8, pen.y - 8, 16, 16);
    }
  }

  function onPointer(event) {
    const pad = at("pad");
    const place = pad.getBoundingClientRect();
    const unit = pad.width / place.width;
    const point = [(event.clientX - place.left) * unit, (event.clientY - place.top) * unit];
    if (event.type === "pointerdown") {
      pad.setPointerCapture(event.pointerId);
      strokes.push([point]);
    } else if (pad.hasPointerCapture(event.pointerId)) {
      strokes.at(-1).push(point);
    } else {
      return;
    }
    showPad();
  }

  function onKey(event) {
    const move = { ArrowLeft: [-8, 0], ArrowRight: [8, 0], ArrowUp: [0, -8], ArrowDown: [0, 8] }[event.key];
    if (event.key === " ") {
      pen.down = !pen.down;
      if (pen.down) strokes.push([[pen.x, pen.y]]);
    } else if (move) {
      const inside = (value) => Math.min(Math.max(value, 0), at("pad").width);
      Object.assign(pen, { x: inside(pen.x + move[0]), y: inside(pen.y + move[1]) });
      if (pen.down) strokes.at(-1).push([pen.x, pen.y]);
    } else {
      return;
    }
    event.preventDefault(); // the page does not scroll
    showPad();
    if (pen.down) reset();
  }

  function onPlace() {
    Object.assign(drawing, { x: Number(at("x").value), y: Number(at("y").value) });
    at("pieces-count").textContent = at("pieces").value;
    reset();
  }

  function clear() {
    strokes = [];
    pen.down = false;
    showPad();
    reset();
  }

  /* ---- The page ---- */

  function thumbnail({ name, image }, i) {
    const canvas = element("canvas", { width: SIDE, height: SIDE });
    paint(canvas, image);
    const button = element("input", { type: "radio", name: "live-image", value: i, checked: i === 0, ariaLabel: name });
    button.addEventListener("change", () => choose("test"));
    return element("label", { title: name }, button, canvas);
  }

  function patchView(_, k) {
    const side = size * 2 ** k;
    return element("div", {}, element("canvas", { width: size, height: size, role: "img",
      ariaLabel: `Patch of ${side} by ${side} px` }), element("span", { textContent: `${side} px` }));
  }

  at("test").append(...tests.map(thumbnail));
  at("patches").append(...Array.from({ length: scales }, patchView));
  at("scales").textContent = scales;
  at("size").textContent = `${size} × ${size}`;
  const columns = Array.from({ length: glimpses }, (_, t) => element("th", { scope: "col", textContent: t + 1 }));
  at("head").append(element("tr", {}, element("th", { scope: "col", textContent: "class" }), ...columns));
  for (let digit = 0; digit < 10; digit++) {
    const cells = Array.from({ length: glimpses }, () => element("td", {}));
    at("body").append(element("tr", {}, element("th", { scope: "row", textContent: digit }), ...cells));
  }

  document.getElementsByName("live-source").forEach((button) =>
    button.addEventListener("change", () => choose(button.value)));
  at("step").addEventListener("click", step);
  at("run").addEventListener("click", run);
  at("reset").addEventListener("click", reset);
  at("clear").addEventListener("click", clear);
  at("shuffle").addEventListener("click", () => { shuffle(); reset(); });
  ["x", "y", "pieces"].forEach((name) => at(name).addEventListener("input", onPlace));
  ["pointerdown", "pointermove"].forEach((name) => at("pad").addEventListener(name, onPointer));
  at("pad").addEventListener("lostpointercapture", reset);
  at("pad").addEventListener("keydown", onKey);
  ["focus", "blur"].forEach((name) => at("pad").addEventListener(name, showPad));

  shuffle();
  showPad();
  choose("test");
})();
