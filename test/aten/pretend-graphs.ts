import type { Argument, Native, TensorId } from '../../src/engine/libtorch/bridge.js';
import { parseSchema, schemaOf } from './schemas.js';

// CUDA graphs on a device that is none. While a graph is recorded nothing is done: what is recorded is done all the same, since
// others need to know its shapes, and undone in the end. A replay does it again with what is in the same memory by then, so that
// a number of the host's that was recorded stays as it was.

type Result = TensorId | null | number | (TensorId | null)[];
/** Does what an operator is asked for. */
export type Perform = (operator: number, args: readonly Argument[]) => Result;

/** A tensor of a recorded call: one that stays outside, or what a call of the recording gave. */
type Place = { outside: TensorId } | { held: TensorId };

interface Call {
  /** −1 for a tensor that was made of a number. */
  operator: number;
  args: (Argument | Place | (Place | null)[])[];
  held: (TensorId | null)[];
}

interface Graph {
  state: 'open' | 'recording' | 'ready';
  calls: Call[];
  /** What recorded calls gave, by the number under which JavaScript has it now. */
  given: Map<TensorId, TensorId>;
  outside: Set<TensorId>;
  /** What was in memory that recorded calls write to, the latest first. */
  before: { tensor: TensorId; copy: TensorId }[];
  broken?: string;
}

export const GRAPH_OPERATORS = ['open', 'begin', 'end', 'replay', 'abort', 'close'].map(
  (name) => `alitok::graph_${name}`,
);

const refuse = (what: string): never => {
  throw new Error(`CUDA error: operation not permitted when stream is capturing: ${what}`);
};

export class Graphs {
  private readonly graphs = new Map<number, Graph>();
  private count = 0;

  constructor(
    private readonly real: Native,
    private readonly direct: (name: string, ...args: Argument[]) => TensorId,
    private readonly perform: Perform,
  ) {}

  /** How many graphs are there that nobody has closed. */
  get open(): number {
    return this.graphs.size;
  }

  private get recording(): Graph | undefined {
    return [...this.graphs.values()].find(({ state }) => state === 'recording');
  }

  /** What must not be while a graph is recorded. */
  forbid(what: string): void {
    if (this.recording) refuse(what);
  }

  /** One of GRAPH_OPERATORS. */
  command(name: string, argument: Argument): number[] | number {
    const action = name.slice('alitok::graph_'.length);
    if (action === 'open') {
      this.count += 1;
      this.graphs.set(this.count, {
        state: 'open',
        calls: [],
        given: new Map(),
        outside: new Set(),
        before: [],
      });
      return this.count;
    }
    const graph = this.graphs.get(argument as number);
    if (!graph) throw new Error(`there is no graph ${argument}`);
    if (action === 'begin') graph.state = 'recording';
    if (action === 'end') this.end(graph);
    if (action === 'replay') this.replay(graph);
    if (action === 'abort' && graph.state === 'recording') this.end(graph);
    if (action === 'abort' || action === 'close') this.close(argument as number, graph);
    return [];
  }

  /** Calls an operator, and records it where a graph is recorded. */
  call(name: string, operator: number, args: readonly Argument[]): Result {
    const graph = this.recording;
    if (!graph) return this.perform(operator, args);
    const { parameters, text } = this.schema(name, operator);
    const tensors = (arg: Argument, i: number) =>
      parameters[i].type.startsWith('Tensor') && arg !== undefined && arg !== null;
    const marks = text.slice(text.indexOf('('), text.lastIndexOf(') ->')).split(', ');
    args.forEach((arg, i) => {
      if (!tensors(arg, i) || !marks[i].includes('!')) return;
      for (const tensor of [arg].flat() as TensorId[])
        graph.before.unshift({ tensor: this.hold(tensor), copy: this.direct('clone', tensor) });
    });
    const placed = args.map((arg, i) => {
      if (!tensors(arg, i)) return arg;
      const place = (id: unknown): Place | null => (id === null ? null : this.place(graph, id as TensorId));
      return Array.isArray(arg) ? arg.map(place) : place(arg)!;
    });
    const result = this.perform(operator, args);
    const gives = !/-> (\(\)|int|bool|float)$/.test(text);
    const results = (gives ? [result].flat() : []) as (TensorId | null)[];
    const held = results.map((id) => {
      if (id === null) return null;
      const own = this.hold(id);
      graph.given.set(id, own);
      return own;
    });
    graph.calls.push({ operator, args: placed, held });
    return result;
  }

  /** To be told of a tensor that is made of a single number, which becomes part of what is recorded. */
  made(id: TensorId): void {
    const graph = this.recording;
    if (!graph) return;
    const own = this.hold(id);
    graph.given.set(id, own);
    graph.calls.push({ operator: -1, args: [], held: [own] });
  }

  /** To be told of a tensor that JavaScript frees. */
  freed(id: TensorId): void {
    for (const graph of this.graphs.values()) {
      if (graph.given.delete(id)) continue;
      if (graph.outside.has(id)) graph.broken ??= 'memory that a recorded call reads has been freed';
    }
  }

  private schema(name: string, operator: number) {
    const known = schemaOf(name);
    if (known) return known;
    // The kernels' emulation does not tell what they write to; the bridge does where the CPU has the operator too.
    const own = this.real.find(name, '');
    return parseSchema(this.real.schema(own ?? operator).replace(/^\w+::/, ''))[1];
  }

  private place(graph: Graph, id: TensorId): Place {
    const held = graph.given.get(id);
    if (held !== undefined) return { held };
    graph.outside.add(id);
    return { outside: id };
  }

  /** Another number for the same tensor, which stays when JavaScript frees its own. */
  private hold(id: TensorId): TensorId {
    return this.direct('alias', id);
  }

  private end(graph: Graph): void {
    graph.state = 'ready';
    for (const { tensor, copy } of graph.before) {
      this.copy(tensor, copy);
      this.real.free(tensor);
      this.real.free(copy);
    }
    graph.before = [];
  }

  private replay(graph: Graph): void {
    if (graph.state !== 'ready') throw new Error('the graph is not recorded');
    if (graph.broken) throw new Error(`an illegal memory access was encountered: ${graph.broken}`);
    const found = (place: Place) => ('held' in place ? place.held : place.outside);
    for (const { operator, args, held } of graph.calls) {
      if (operator < 0) continue;
      const resolved = args.map((arg) => {
        if (Array.isArray(arg))
          return arg.map((one) => (one && typeof one === 'object' ? found(one as Place) : one));
        return arg && typeof arg === 'object' ? found(arg as Place) : arg;
      });
      const results = [this.perform(operator, resolved as Argument[])].flat() as (TensorId | null)[];
      held.forEach((own, i) => {
        const result = results[i];
        if (own === null || result === null) return;
        if (this.address(own) !== this.address(result)) this.copy(own, result);
        this.real.free(result);
      });
    }
  }

  private copy(to: TensorId, from: TensorId): void {
    this.real.free(this.direct('copy_', to, from)); // another number for `to`
  }

  private address(id: TensorId): number {
    return this.real.call(this.real.find('alitok_emulated::address', '')!, id);
  }

  private close(number: number, graph: Graph): void {
    for (const { held } of graph.calls) for (const id of held) if (id !== null) this.real.free(id);
    this.graphs.delete(number);
  }
}
