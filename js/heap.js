// @ts-check
// Which bytes of the kernels' memory are taken. Regions are few and large: a network's weights, a program's values.

/** What regions begin at a multiple of: a line of the processor's cache. */
export const ALIGNMENT = 64;

/** First fit over one stretch of addresses that can grow at its end. */
export class Heap {
  /** What is free, in order and never adjacent. @type {{ start: number, end: number }[]} */
  #free;
  /** The size of each region by its address. @type {Map<number, number>} */
  #taken = new Map();
  #end;
  #grow;

  /**
   * @param {number} start the first byte that may be taken
   * @param {number} end where the stretch ends now
   * @param {(bytes: number) => number} grow makes the stretch longer by this many bytes or more; by how many it did, 0 if it cannot
   */
  constructor(start, end, grow) {
    start = aligned(start);
    this.#free = start < end ? [{ start, end }] : [];
    this.#end = Math.max(start, end);
    this.#grow = grow;
  }

  /**
   * The address of a region of this many bytes; undefined if there is no room.
   * @param {number} bytes
   * @returns {number | undefined}
   */
  allocate(bytes) {
    const size = aligned(Math.max(bytes, 1));
    let index = this.#free.findIndex(({ start, end }) => end - start >= size);
    if (index < 0) {
      const last = this.#free.at(-1);
      const grown = this.#grow(size - (last?.end === this.#end ? last.end - last.start : 0));
      if (grown === 0) return undefined;
      this.#release(this.#end, this.#end + grown);
      this.#end += grown;
      index = this.#free.length - 1;
    }
    const hole = this.#free[index];
    const address = hole.start;
    hole.start += size;
    if (hole.start >= hole.end) this.#free.splice(index, 1);
    this.#taken.set(address, size);
    return address;
  }

  /**
   * Gives a region back.
   * @param {number} address as `allocate` returned it
   */
  free(address) {
    const size = this.#taken.get(address);
    if (size === undefined) throw new RangeError(`no region begins at ${address}`);
    this.#taken.delete(address);
    this.#release(address, address + size);
  }

  /**
   * Makes a stretch free, as one with its neighbours.
   * @param {number} start
   * @param {number} end
   */
  #release(start, end) {
    const at = this.#free.findIndex((hole) => hole.start > start);
    const index = at < 0 ? this.#free.length : at;
    const [before, after] = [this.#free[index - 1], this.#free[index]];
    const hole = { start, end };
    let [from, count] = [index, 0];
    if (before?.end === start) {
      hole.start = before.start;
      [from, count] = [index - 1, 1];
    }
    if (after?.start === end) {
      hole.end = after.end;
      count += 1;
    }
    this.#free.splice(from, count, hole);
  }
}

/** @param {number} address */
function aligned(address) {
  return Math.ceil(address / ALIGNMENT) * ALIGNMENT;
}
