import type { Argument, Native, TensorId } from '../../src/engine/libtorch/bridge.js';
import { parseSchema, schemaOf } from './schemas.js';

// Simulates CUDA graphs on the CPU. While a real graph is recorded, nothing is executed. Here, recorded calls are executed anyway,
// because later calls need the shapes of their results, and what they write is undone at the end. A replay executes the calls
// again with the current contents of the same memory. A recorded number from the host stays as it was.

type Result = TensorId | null | number | (TensorId | null)[];
/** Executes an operator. */
export type Perform = (operator: number, args: readonly Argument[]) => Result;

/** A tensor argument of a recorded call: from outside the recording, or the result of a recorded call. */
type Place = { outside: TensorId } | { held: TensorId };

interface Call {
  /** −1 for a tensor that was created from a number. */
  operator: number;
  args: (Argument | Place | (Place | null)[])[];
  held: (TensorId | null)[];
}

interface Graph {
  state: 'open' | 'recording' | 'ready';
  calls: Call[];
  /** Results of recorded calls, by the tensor ids that JavaScript uses for them. */
  given: Map<TensorId, TensorId>;
  outside: Set<TensorId>;
  /** Previous contents of the memory that recorded calls write to, latest first. */
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

  /** The number of graphs that have not been closed. */
  get open(): number {
    return this.graphs.size;
  }

  private get recording(): Graph | undefined {
    return [...this.graphs.values()].find(({ state }) => state === 'recording');
  }

  /** Throws if a graph is being recorded. */
  forbid(what: string): void {
    if (this.recording) refuse(what);
  }

  /** Executes one of GRAPH_OPERATORS. */
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

  /** Calls an operator, and records the call if a graph is being recorded. */
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

  /** Must be called for each tensor that is created from a single number: the tensor becomes part of the recording. */
  made(id: TensorId): void {
    const graph = this.recording;
    if (!graph) return;
    const own = this.hold(id);
    graph.given.set(id, own);
    graph.calls.push({ operator: -1, args: [], held: [own] });
  }

  /** Must be called for each tensor that JavaScript frees. */
  freed(id: TensorId): void {
    for (const graph of this.graphs.values()) {
      if (graph.given.delete(id)) continue;
      if (graph.outside.has(id)) graph.broken ??= 'memory that a recorded call reads has been freed';
    }
  }

  private schema(name: string, operator: number) {
    const known = schemaOf(name);
    if (known) return known;
    // The schemas of emulated operators do not say what they write to. The bridge's do, if the CPU has the operator too.
    const own = this.real.find(name, '');
    return parseSchema(this.real.schema(own ?? operator).replace(/^\w+::/, ''))[1];
  }

  private place(graph: Graph, id: TensorId): Place {
    const held = graph.given.get(id);
    if (held !== undefined) return { held };
    graph.outside.add(id);
    return { outside: id };
  }

  /** Another id for the same tensor, which stays valid when JavaScript frees its own id. */
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
    this.real.free(this.direct('copy_', to, from)); // `copy_` returns another id for `to`
  }

  private address(id: TensorId): number {
    return this.real.call(this.real.find('alitok_emulated::address', '')!, id);
  }

  private close(number: number, graph: Graph): void {
    for (const { held } of graph.calls) for (const id of held) if (id !== null) this.real.free(id);
    this.graphs.delete(number);
  }
}
