// The pad that one draws on, with mouse, finger, pen or keyboard.

import { MOVES } from "./paint.js";

const PEN = 1 / 13; // its width as a part of the pad's: a digit over most of the pad gets strokes like those of MNIST
const STEP = 1 / 28; // of the keyboard's pen

export class Pad {
  /** `changed` is called after each change of what is drawn. */
  constructor(canvas, cursor, changed) {
    Object.assign(this, { canvas, cursor, changed, strokes: [], drawing: false, at: [0.5, 0.5], down: false });
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    canvas.addEventListener("pointerdown", (event) => this.begin(event));
    canvas.addEventListener("pointermove", (event) => this.go(event));
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) {
      canvas.addEventListener(name, ({ pointerId }) => pointerId === this.drawing && (this.drawing = false));
    }
    canvas.addEventListener("keydown", (event) => this.press(event));
    canvas.addEventListener("blur", () => this.lift());
  }

  /** What is drawn: width x height numbers from 0 to 1. */
  ink() {
    const { width, height } = this.canvas;
    const { data } = this.context.getImageData(0, 0, width, height);
    const ink = new Float32Array(width * height);
    for (let at = 0; at < ink.length; at++) ink[at] = data[4 * at + 3] / 255;
    return ink;
  }

  clear() {
    this.strokes = [];
    this.drawing = false;
    this.lift();
    this.redraw();
  }

  /** Take the last stroke back. */
  undo() {
    this.strokes.pop();
    this.drawing = this.down = false;
    this.redraw();
  }

  begin(event) {
    if (event.button !== 0 || this.drawing !== false) return; // a second finger does not draw
    this.canvas.setPointerCapture(event.pointerId);
    this.drawing = event.pointerId;
    this.strokes.push([this.place(event)]);
    this.redraw();
  }

  go(event) {
    if (this.drawing !== event.pointerId) return;
    const events = event.getCoalescedEvents?.() ?? [];
    this.strokes.at(-1).push(...(events.length ? events : [event]).map((each) => this.place(each)));
    this.redraw();
  }

  /** Where a pointer is, as a part of the pad's width and height. */
  place({ clientX, clientY }) {
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    return [(clientX - left) / width, (clientY - top) / height];
  }

  press(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return; // the browser's own shortcuts
    if (event.key in MOVES) {
      this.at = this.at.map((part, axis) => Math.min(Math.max(part + STEP * MOVES[event.key][axis], 0), 1));
      if (this.down) this.strokes.at(-1).push(this.at);
    } else if (event.key === " ") {
      if (!event.repeat) this.down = !this.down; // a key that is held down repeats
      if (this.down && !event.repeat) this.strokes.push([this.at]);
    } else if (event.key === "Delete" || event.key === "Backspace") {
      this.clear();
    } else {
      return;
    }
    event.preventDefault(); // the page does not scroll
    this.cursor.hidden = false;
    this.cursor.classList.toggle("down", this.down);
    [this.cursor.style.left, this.cursor.style.top] = this.at.map((part) => `${100 * part}%`);
    this.redraw();
  }

  lift() {
    this.down = false;
    this.cursor.hidden = true;
  }

  redraw() {
    const { context, canvas: { width, height } } = this;
    context.clearRect(0, 0, width, height);
    Object.assign(context, { lineWidth: PEN * width, lineCap: "round", lineJoin: "round", strokeStyle: "white" });
    for (const points of this.strokes) {
      context.beginPath();
      for (const [x, y] of [points[0], ...points]) context.lineTo(x * width, y * height); // a point alone is a dot
      context.stroke();
    }
    this.changed();
  }
}
