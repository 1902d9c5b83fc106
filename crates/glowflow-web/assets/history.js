// Undo and redo of states.

/** Maximum number of states. */
const MAX_STATES = 200;
/** States of one kind within this time are merged. */
const MERGED_MS = 800;

export class History {
  #states = [];
  #at = -1;
  #last = { kind: undefined, time: 0 };

  /**
   * Adds a state after the current one. States of the same kind in quick succession, as from a held key, are
   * merged.
   */
  push(state, kind) {
    const time = performance.now();
    const merge = kind !== undefined && kind === this.#last.kind && time - this.#last.time < MERGED_MS
      && this.canUndo;
    this.#last = { kind, time };
    if (!merge) this.#at++;
    this.#states.length = this.#at;
    this.#states.push(state);
    if (this.#states.length > MAX_STATES) {
      this.#states.shift();
      this.#at--;
    }
  }

  get canUndo() {
    return this.#at > 0;
  }

  get canRedo() {
    return this.#at + 1 < this.#states.length;
  }

  undo() {
    return this.#go(-1, this.canUndo);
  }

  redo() {
    return this.#go(1, this.canRedo);
  }

  /** The state to return to, or undefined. */
  #go(step, possible) {
    if (!possible) return undefined;
    this.#last.kind = undefined;
    this.#at += step;
    return this.#states[this.#at];
  }
}
