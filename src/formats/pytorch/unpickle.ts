// The instructions: CPython's Lib/pickletools.py. Nothing is imported or called: globals are looked up in a table of the caller,
// and calls go to functions of that table. Written here because hostile files must be refused with little
// time and memory.

/** Values of a pickle. A dict is a Map; lists and tuples are arrays. */
export type PickleValue =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | PickleValue[]
  | Map<PickleValue, PickleValue>
  | PickleObject;

/** Objects that the caller's functions create; opaque here. */
export abstract class PickleObject {}

/** A name that the pickle imports. */
export class PickleGlobal extends PickleObject {
  constructor(
    readonly name: string,
    /** Handles a call of the name; absent for names that cannot be called. */
    readonly call?: (args: PickleValue[]) => PickleValue,
  ) {
    super();
  }
}

export interface PickleWorld {
  /** Looks up `module.name`; throws for names that are not allowed. */
  global(name: string): PickleGlobal;
  /** Looks up a persistent id. */
  persistent(id: PickleValue): PickleValue;
}

/** The pickle is not valid; the message says why. */
export class PickleError extends Error {}

/** Far more than files of tensors need (30 instructions per tensor, 5 levels of nesting), and quickly refused. */
const MAX_INSTRUCTIONS = 2_000_000;
const MAX_DEPTH = 100;
const MAX_STACK = 100_000;

/** Marks on the stack where a list of arguments begins. */
const MARK = Symbol('mark');
type Slot = PickleValue | typeof MARK;

/** A pickle's bytes, read from front to back. */
class Reader {
  private readonly view: DataView;
  position: number;

  constructor(
    private readonly data: Uint8Array,
    start: number,
  ) {
    this.view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    this.position = start;
  }

  /** Skips `length` bytes and returns where they begin. */
  private skip(length: number): number {
    const at = this.position;
    if (length > this.data.length - at) throw new PickleError('it ends too early');
    this.position = at + length;
    return at;
  }

  u8 = () => this.view.getUint8(this.skip(1));
  u16 = () => this.view.getUint16(this.skip(2), true);
  u32 = () => this.view.getUint32(this.skip(4), true);
  i32 = () => this.view.getInt32(this.skip(4), true);
  u64 = () => Number(this.view.getBigUint64(this.skip(8), true));
  float = () => this.view.getFloat64(this.skip(8), false);

  bytes(length: number): Uint8Array {
    const at = this.skip(length);
    return this.data.subarray(at, at + length);
  }

  text(length: number): string {
    const bytes = this.bytes(length);
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
  }

  line(): string {
    const end = this.data.indexOf(0x0a, this.position);
    if (end < 0) throw new PickleError('it ends too early');
    const line = this.text(end - this.position);
    this.position = end + 1;
    return line;
  }

  /** A two's complement integer of `length` bytes. */
  integer(length: number): number | bigint {
    if (length > 64) throw new PickleError(`an integer of ${length} bytes`);
    const hex = Buffer.from(this.bytes(length)).reverse().toString('hex');
    const value = BigInt.asIntN(8 * length, BigInt(hex === '' ? 0 : `0x${hex}`));
    return Number.isSafeInteger(Number(value)) ? Number(value) : value;
  }
}

/**
 * Reads one pickle of protocol 2 to 5 that begins at `start`. It can use only what `world` provides.
 * @returns its value and where it ends
 * @throws PickleError if it is not valid, or larger or deeper than any file of tensors; whatever `world` throws
 */
export function unpickle(
  data: Uint8Array,
  start: number,
  world: PickleWorld,
): { value: PickleValue; end: number } {
  const reader = new Reader(data, start);
  const stack: Slot[] = [];
  const memo = new Map<number, PickleValue>();
  const depths = new WeakMap<object, number>();

  function push(value: Slot): void {
    if (stack.length >= MAX_STACK)
      throw new PickleError(`it is nested too deep or has too many values at once`);
    stack.push(value);
  }
  function pop(): PickleValue {
    const value = stack.pop();
    if (value === undefined || value === MARK) throw new PickleError('an instruction lacks its value');
    return value as PickleValue;
  }
  function top(): PickleValue {
    const value = pop();
    stack.push(value);
    return value;
  }
  function popMark(): PickleValue[] {
    const at = stack.lastIndexOf(MARK);
    if (at < 0) throw new PickleError('an instruction lacks its values');
    const values = stack.splice(at + 1) as PickleValue[];
    stack.pop();
    return values;
  }
  /** Checks that `container`, which now contains `values`, is not nested too deeply. */
  function nested<T extends object>(container: T, values: readonly PickleValue[]): T {
    let depth = depths.get(container) ?? 1;
    for (const value of values)
      if (typeof value === 'object' && value !== null) depth = Math.max(depth, 1 + (depths.get(value) ?? 0));
    if (depth > MAX_DEPTH) throw new PickleError(`its values are nested deeper than ${MAX_DEPTH} levels`);
    depths.set(container, depth);
    return container;
  }
  const tuple = (values: PickleValue[]) => push(nested(values, values));
  function tupleOf(count: number): void {
    const values = Array.from({ length: count }, pop).reverse();
    tuple(values);
  }
  function append(values: PickleValue[]): void {
    const list = top();
    if (!Array.isArray(list)) throw new PickleError('it appends to something that is not a list');
    for (const value of values) list.push(value);
    nested(list, values);
  }
  function setItems(values: PickleValue[]): void {
    const dict = top();
    if (!(dict instanceof Map) || values.length % 2 !== 0)
      throw new PickleError('it sets items of something that is not a dict');
    for (let i = 0; i < values.length; i += 2) dict.set(values[i], values[i + 1]);
    nested(dict, values);
  }
  function dictOf(values: PickleValue[]): void {
    push(new Map());
    setItems(values);
  }
  function call(): void {
    const args = pop();
    const callee = pop();
    if (!(callee instanceof PickleGlobal) || !callee.call || !Array.isArray(args))
      throw new PickleError('it calls something that cannot be called');
    push(callee.call(args));
  }
  /** Drops the state of an OrderedDict: attributes that Python code has set, such as module versions. */
  function build(): void {
    pop();
    if (!(top() instanceof Map)) throw new PickleError('it gives a state to something that has none');
  }
  function recall(index: number): void {
    const value = memo.get(index);
    if (value === undefined) throw new PickleError('it recalls a value that it has not stored');
    push(value);
  }
  function decimal(text: string): number | bigint {
    if (!/^-?\d{1,40}L?$/.test(text)) throw new PickleError('it has an invalid integer');
    const value = Number(text.replace('L', ''));
    return Number.isSafeInteger(value) ? value : BigInt(text.replace('L', ''));
  }

  const step = {
    '\x80': () => {
      if (reader.u8() > 5) throw new PickleError('its pickle protocol is newer than 5');
    },
    '\x95': () => void reader.u64(),
    '(': () => push(MARK),
    '0': () => void stack.pop(),
    '1': () => void popMark(),
    '2': () => push(top()),
    N: () => push(null),
    '\x88': () => push(true),
    '\x89': () => push(false),
    I: () => {
      const text = reader.line();
      push(text === '01' ? true : text === '00' ? false : decimal(text));
    },
    L: () => push(decimal(reader.line())),
    J: () => push(reader.i32()),
    K: () => push(reader.u8()),
    M: () => push(reader.u16()),
    '\x8a': () => push(reader.integer(reader.u8())),
    '\x8b': () => push(reader.integer(reader.u32())),
    F: () => push(Number(reader.line())),
    G: () => push(reader.float()),
    V: () => push(reader.line()),
    X: () => push(reader.text(reader.u32())),
    '\x8c': () => push(reader.text(reader.u8())),
    '\x8d': () => push(reader.text(reader.u64())),
    T: () => push(reader.text(reader.u32())),
    U: () => push(reader.text(reader.u8())),
    B: () => push(reader.bytes(reader.u32())),
    C: () => push(reader.bytes(reader.u8())),
    '\x8e': () => push(reader.bytes(reader.u64())),
    '\x96': () => push(reader.bytes(reader.u64())),
    ')': () => push([]),
    t: () => tuple(popMark()),
    '\x85': () => tupleOf(1),
    '\x86': () => tupleOf(2),
    '\x87': () => tupleOf(3),
    ']': () => push([]),
    l: () => tuple(popMark()),
    a: () => append([pop()]),
    e: () => append(popMark()),
    '}': () => push(new Map()),
    d: () => dictOf(popMark()),
    s: () => {
      const value = pop();
      setItems([pop(), value]);
    },
    u: () => setItems(popMark()),
    p: () => void memo.set(Number(reader.line()), top()),
    q: () => void memo.set(reader.u8(), top()),
    r: () => void memo.set(reader.u32(), top()),
    '\x94': () => void memo.set(memo.size, top()),
    g: () => recall(Number(reader.line())),
    h: () => recall(reader.u8()),
    j: () => recall(reader.u32()),
    c: () => push(world.global(`${reader.line()}.${reader.line()}`)),
    '\x93': () => {
      const name = pop();
      push(world.global(`${String(pop())}.${String(name)}`));
    },
    R: call,
    '\x81': call,
    b: build,
    Q: () => push(world.persistent(pop())),
  } satisfies Record<string, () => void>;
  const instructions: ((() => void) | undefined)[] = [];
  for (const [opcode, instruction] of Object.entries(step)) instructions[opcode.charCodeAt(0)] = instruction;

  for (let count = 0; count < MAX_INSTRUCTIONS; count++) {
    const opcode = reader.u8();
    if (opcode === STOP) return { value: pop(), end: reader.position };
    const instruction = instructions[opcode];
    if (!instruction) throw new PickleError(refusal(opcode));
    instruction();
  }
  throw new PickleError('its pickle is longer than that of any file of tensors');
}

const STOP = '.'.charCodeAt(0);

/** Says why an instruction is refused: it creates objects of arbitrary classes, or is unknown. */
function refusal(opcode: number): string {
  const letter = String.fromCharCode(opcode);
  return 'io\x82\x83\x84\x92'.includes(letter)
    ? 'it makes an object of a class, which is refused as it could run code'
    : `0x${opcode.toString(16)} is not an instruction in pickles of tensors`;
}
