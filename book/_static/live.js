/* The live explorer: one canvas of clutter and a digit that the reader drags or draws; RAM and URAM read it side by
   side. Every change computes both readings anew (`Uram.run`); a clock reveals them glimpse by glimpse. */
"use strict";

(() => {
  const FRAME = 28; // of a digit, in pixels
  const PEN = 2.4; // width of a stroke
  const PIECE = 8; // of clutter
  const PIECES = 10;
  const TICK_MS = 600; // between two glimpses
  const REST = 4; // ticks at the end of a path
  const [ORANGE, SKY, GREEN] = ["#E69F00", "#56B4E9", "#009E73"];
  const NAMES = { ram: ["RAM", "starts anywhere"], unified: ["URAM", "picks a quarter first"] };

  const root = document.getElementById("live");
  if (!root || typeof uramModels === "undefined") return;
  document.getElementById("live-missing").hidden = true;
  root.hidden = false;
  const at = (name) => document.getElementById(`live-${name}`);
  const element = (tag, properties, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };

  const SIDE = uramModels.side;
  const bytes = Uint8Array.from(atob(uramModels.digits.data), (letter) => letter.charCodeAt(0));
  const digits = uramModels.digits.labels.map((label, i) => ({
    label, frame: Float64Array.from(bytes.subarray(i * FRAME ** 2, (i + 1) * FRAME ** 2), (value) => value / 255),
  }));
  const views = uramModels.models.map((exported) => ({ model: Uram.load(exported) }));
  const steps = Math.max(...views.map((view) => view.model.config.glimpses));

  const scene = { index: -1, digit: null, x: 0, y: 0, strokes: [], clutter: [], draw: [0.5, 0.5], image: null };
  const clock = { shown: 1, rest: 0, paused: false, touched: false };
  let held = null; // while a pointer drags: {x, y} of the scene and the pointer at its start, or {line} of a stroke

  /* mulberry32: a small generator with a seed, so that every visit begins with the same scene. */
  let seed = 20211113;
  function random() {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  }
  const whole = (limit) => Math.floor(random() * limit); // uniform in 0 ... limit - 1

  /* ---- The scene ---- */

  /* Windows of 8 x 8 at random places of other digits, as in the data set. */
  function strew() {
    scene.clutter = Array.from({ length: PIECES }, () => ({
      from: digits[whole(digits.length)].frame,
      left: whole(FRAME - PIECE + 1), top: whole(FRAME - PIECE + 1),
      x: whole(SIDE - PIECE + 1), y: whole(SIDE - PIECE + 1),
    }));
  }

  function next() {
    scene.index = (scene.index + 1) % digits.length;
    scene.digit = digits[scene.index];
    scene.strokes = [];
    Object.assign(scene, { x: whole(SIDE - FRAME + 1), y: whole(SIDE - FRAME + 1), draw: [random(), random()] });
    strew();
    compose(true);
    at("status").textContent = "";
  }

  /* Add a square piece to the image, up to white. */
  function add(image, x, y, source, left, top, side) {
    for (let i = 0; i < side; i++) {
      for (let j = 0; j < side; j++) {
        if (y + i < 0 || x + j < 0 || y + i >= SIDE || x + j >= SIDE) continue;
        const to = (y + i) * SIDE + x + j;
        image[to] = Math.min(image[to] + source[(top + i) * FRAME + left + j], 1);
      }
    }
  }

  /* The image of the scene, and both readings of it. again: show them from the first glimpse on. */
  function compose(again) {
    const image = new Float64Array(SIDE * SIDE);
    if (scene.digit) add(image, scene.x, scene.y, scene.digit.frame, 0, 0, FRAME);
    for (const piece of scene.clutter) add(image, piece.x, piece.y, piece.from, piece.left, piece.top, PIECE);
    if (scene.strokes.length) {
      const context = element("canvas", { width: SIDE, height: SIDE }).getContext("2d");
      Object.assign(context, { strokeStyle: "white", lineWidth: PEN, lineCap: "round", lineJoin: "round" });
      for (const line of scene.strokes) {
        context.beginPath();
        context.moveTo(...line[0]);
        line.forEach((point) => context.lineTo(...point));
        context.stroke();
      }
      const { data } = context.getImageData(0, 0, SIDE, SIDE);
      for (let i = 0; i < image.length; i++) image[i] = Math.min(image[i] + data[4 * i + 3] / 255, 1);
    }
    scene.image = image;
    for (const view of views) view.result = Uram.run(view.model, image, scene.draw);
    Object.assign(clock, { shown: again ? 1 : steps, rest: 0 });
    show();
  }

  /* ---- What is shown ---- */

  const pixel = (location) => location.map((value) => (value + 1) / 2 * SIDE);
  const percent = (share) => `${Math.round(100 * share)} %`;

  function paint(canvas) {
    const small = element("canvas", { width: SIDE, height: SIDE });
    const pixels = new ImageData(SIDE, SIDE);
    scene.image.forEach((value, i) => pixels.data.set([255 * value, 255 * value, 255 * value, 255], 4 * i));
    small.getContext("2d").putImageData(pixels, 0, 0);
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
    return context;
  }

  function showPath(view, seen) {
    const context = paint(view.canvas);
    const { regions, patch_size: size, scales } = view.model.config;
    const unit = view.canvas.width / SIDE;
    if (view.result.action !== null) {
      const cell = [view.result.action % regions, Math.floor(view.result.action / regions)];
      const [left, top] = cell.map((step) => step * SIDE / regions * unit);
      Object.assign(context, { strokeStyle: GREEN, lineWidth: 4 });
      context.strokeRect(left + 2, top + 2, SIDE / regions * unit - 4, SIDE / regions * unit - 4);
    }
    const path = seen.map((glimpse) => pixel(glimpse.location));
    const [x, y] = path.at(-1);
    Object.assign(context, { strokeStyle: SKY, lineWidth: 2 });
    for (let k = 0; k < scales; k++) {
      const side = size * 2 ** k;
      context.strokeRect((x - side / 2) * unit, (y - side / 2) * unit, side * unit, side * unit);
    }
    Object.assign(context, { strokeStyle: ORANGE, fillStyle: ORANGE, lineWidth: 3, font: "bold 24px sans-serif" });
    context.beginPath();
    path.forEach(([u, v]) => context.lineTo(u * unit, v * unit));
    context.stroke();
    path.forEach(([u, v], t) => {
      context.beginPath();
      context.arc(u * unit, v * unit, 6, 0, 2 * Math.PI);
      context.fill();
      if (t !== 0 && t !== path.length - 1) return; // numbers in between would lie on one another
      const label = [t + 1, u * unit + (u > SIDE - 8 ? -24 : 9), v * unit + (v < 8 ? 28 : -9)];
      Object.assign(context, { strokeStyle: "black", lineWidth: 4 });
      context.strokeText(...label);
      context.fillText(...label);
    });
  }

  function show() {
    const said = views.map((view) => {
      const seen = view.result.glimpses.slice(0, Math.min(clock.shown, view.result.glimpses.length));
      const shares = Uram.softmax(seen.at(-1).logits);
      const best = Uram.argmax(shares);
      showPath(view, seen);
      view.bars.forEach((bar, digit) => {
        bar.style.setProperty("--share", `${100 * shares[digit]}%`);
        bar.classList.toggle("likeliest", digit === best);
        bar.classList.toggle("truth", Boolean(scene.digit) && digit === scene.digit.label);
      });
      const last = clock.shown >= view.result.glimpses.length;
      const mark = !scene.digit || !last ? "" : best === scene.digit.label ? " ✓" : " ✗";
      view.answer.textContent = `glimpse ${seen.length} of ${view.result.glimpses.length}: ${best}, `
        + `${percent(shares[best])}${mark}`;
      view.canvas.ariaLabel = `${view.name}: ${view.answer.textContent}. Arrow keys move the digit.`;
      return `${view.name} reads ${best} (${percent(shares[best])})`;
    });
    const ended = clock.shown >= steps;
    at("pause").textContent = ended && clock.touched ? "Replay" : clock.paused ? "Play" : "Pause";
    if (!ended || held) return;
    const what = scene.digit ? `The digit is a ${scene.digit.label}.` : scene.strokes.length ? "Your drawing." : "";
    at("status").textContent = `${what} ${said.join("; ")}.`;
  }

  function tick() {
    if (clock.paused || held || document.hidden) return;
    if (clock.shown < steps) {
      clock.shown += 1;
      show();
    } else if (!clock.touched && ++clock.rest > REST) {
      next();
    }
  }

  /* ---- What the reader does ---- */

  const tool = () => root.querySelector("input[name=live-tool]:checked").value;

  function touched() {
    clock.touched = true;
    clock.paused = false;
  }

  function moveTo(x, y) {
    const inside = (value) => Math.min(Math.max(Math.round(value), 0), SIDE - FRAME);
    const [dx, dy] = [inside(x) - scene.x, inside(y) - scene.y];
    if (!dx && !dy) return;
    scene.strokes = scene.strokes.map((line) => line.map(([u, v]) => [u + dx, v + dy]));
    Object.assign(scene, { x: scene.x + dx, y: scene.y + dy });
    compose(false);
  }

  function onPointer(event) {
    const place = event.currentTarget.getBoundingClientRect();
    const point = [event.clientX - place.left, event.clientY - place.top].map((value) => value / place.width * SIDE);
    if (event.type === "pointerdown") {
      touched();
      event.currentTarget.setPointerCapture(event.pointerId);
      if (tool() === "draw") {
        scene.strokes.push([point]);
        held = { line: scene.strokes.at(-1) };
      } else {
        held = { x: scene.x, y: scene.y, from: point };
      }
    } else if (held?.line) {
      held.line.push(point);
    } else if (held) {
      moveTo(held.x + point[0] - held.from[0], held.y + point[1] - held.from[1]);
      return;
    } else {
      return;
    }
    compose(false);
  }

  function release() {
    held = null;
    show();
  }

  function onKey(event) {
    const move = { ArrowLeft: [-4, 0], ArrowRight: [4, 0], ArrowUp: [0, -4], ArrowDown: [0, 4] }[event.key];
    if (!move) return;
    event.preventDefault(); // the page does not scroll
    touched();
    moveTo(scene.x + move[0], scene.y + move[1]);
  }

  function erase() {
    touched();
    scene.digit = null;
    scene.strokes = [];
    compose(false);
    at("status").textContent = "Draw a digit about a fifth of the canvas tall.";
  }

  function onTool() {
    root.dataset.tool = tool();
    if (tool() === "draw" && scene.digit) erase();
  }

  /* ---- The page ---- */

  for (const view of views) {
    const { kind } = view.model.config;
    view.name = NAMES[kind][0];
    view.canvas = element("canvas", { width: 500, height: 500, tabIndex: 0 });
    view.canvas.setAttribute("role", "application");
    view.answer = element("p", { className: "live-answer" });
    view.bars = Array.from({ length: 10 }, (_, digit) => element("span", {}, element("b", { textContent: digit })));
    const bars = element("div", { className: "live-bars", ariaHidden: "true" }, ...view.bars);
    const title = element("figcaption", {}, element("b", { textContent: view.name }), ` ${NAMES[kind][1]}`);
    root.querySelector(".live-pair").append(element("figure", {}, title, view.canvas, view.answer, bars));
    ["pointerdown", "pointermove"].forEach((name) => view.canvas.addEventListener(name, onPointer));
    view.canvas.addEventListener("lostpointercapture", release);
    view.canvas.addEventListener("keydown", onKey);
  }
  at("next").addEventListener("click", () => {
    touched();
    root.querySelector("input[value=move]").checked = true;
    onTool();
    next();
  });
  at("clutter").addEventListener("click", () => { touched(); strew(); compose(true); });
  at("erase").addEventListener("click", erase);
  at("pause").addEventListener("click", () => {
    if (clock.shown >= steps && clock.touched) return compose(true);
    clock.paused = !clock.paused;
    show();
  });
  root.querySelectorAll("input[name=live-tool]").forEach((one) => one.addEventListener("change", onTool));

  onTool();
  next();
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
    touched();
    compose(false);
  }
  setInterval(tick, TICK_MS);
  window.uramExplorer = { scene, views, clock, next }; // for tests
})();
