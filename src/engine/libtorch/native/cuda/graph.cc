// Graphs: work that is captured once and then queued as a whole, so that its many small kernels cost one launch. Interfaces of
// recent versions of PyTorch, so build.js leaves this file out where it does not compile.
//
//   graph_open   another stream becomes the current one. What runs now runs as ever: to be run once before it is captured,
//                so that libraries make their handles and workspaces, and kernels are loaded, neither of which can be captured.
//   graph_begin  from now on work is noted, and not done.
//   graph_end    the former stream is the current one again, and the graph can be replayed there, as often as wanted.
//
// Memory. PyTorch's allocator gives a tensor's memory, once that is freed, to later tensors of the stream that was current
// when it was made, with no regard for work on other streams. That is safe here because all work is queued by one thread, and
// either stream waits for all work of the other one when it takes over:
// - A tensor of the former stream that is freed between graph_open and graph_end gives its memory to tensors made after
//   graph_end, whose work comes after all that the other stream did. In the same way for a tensor of the other stream that is
//   freed after graph_end: the next graph_open waits for its last use. All graphs of a device share one stream, for which
//   there is also only one workspace of cuBLAS.
// - Tensors that are made between graph_begin and graph_end have their memory from a pool that is the graph's own. Nobody else
//   gets it before graph_close, also when they are freed. Those that are kept hold what the last replay computed.
// - What a graph reads and was made before graph_begin, its owner must keep, in place, as long as the graph is replayed: the
//   allocator does not know that the graph has its address.
// What waits for nobody is memory that goes back to the device: mapped pages ("expandable segments", which this engine asks
// for) are unmapped once the stream that they belong to is done, though another one may still read them. So before the
// allocator looks for memory beyond what it has, the other stream is made to wait for the current one (Settle).
#include <ATen/ATen.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/core/Event.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <map>
#include <memory>
#include <thread>

namespace alitok::cuda {
namespace {

using c10::cuda::CUDAStream;

enum class State {
  Open,      // the graph's stream is current
  Capturing, // and takes notes
  Ready,     // can be replayed
  Failed,    // can only be freed
};

struct Graph {
  std::unique_ptr<at::cuda::CUDAGraph> graph;
  decltype(at::cuda::graph_pool_handle()) pool;
  CUDAStream stream, before;
  State state = State::Open;
};

/** The graphs by number. Never destroyed: CUDA may be gone when the process ends. */
std::map<int64_t, Graph>& graphs = *new std::map<int64_t, Graph>();
/** The stream on which a device's graphs are made, once one was. */
std::map<c10::DeviceIndex, CUDAStream>& streams = *new std::map<c10::DeviceIndex, CUDAStream>();
/** The graph that is being made; −1 where there is none. */
int64_t open_graph = -1;
/** The thread that makes graphs, and whose current stream is meant. */
std::thread::id owner;

Graph& graph_of(int64_t number) {
  const auto found = graphs.find(number);
  TORCH_CHECK(found != graphs.end(), "there is no graph ", number);
  return found->second;
}

/** Has one stream wait for the work that another one has now; nobody else waits. */
void wait(const CUDAStream& stream, const CUDAStream& other) {
  c10::Event done(c10::DeviceType::CUDA);
  done.record(other.unwrap());
  done.block(stream.unwrap());
}

/** Before the allocator takes memory from the device, or gives it back: see above. */
class Settle : public c10::FreeMemoryCallback {
 public:
  bool Execute() override {
    // While a graph is made, nothing new is on the former stream; and what is captured can wait for no other stream.
    if (open_graph >= 0 || streams.empty() || std::this_thread::get_id() != owner) return false;
    for (const auto& [device, stream] : streams) {
      const CUDAStream current = c10::cuda::getCurrentCUDAStream(device);
      if (current != stream) wait(stream, current);
    }
    return false; // it has freed nothing
  }
};

/** The former stream is current again, after all that the graph's stream did. */
void restore(Graph& graph) {
  open_graph = -1;
  c10::cuda::setCurrentCUDAStream(graph.before);
  wait(graph.before, graph.stream);
}

/**
 * After a capture that ended in an error, or could not begin. Up to PyTorch 2.11 it stays noted in the allocator, which then
 * never gives memory back. Later versions have put that right themselves, and refuse the first call. Never throws.
 */
void mend(Graph& graph) {
  try {
    c10::cuda::CUDACachingAllocator::endAllocateToPool(graph.stream.device_index(), graph.pool);
    c10::cuda::CUDACachingAllocator::releasePool(graph.stream.device_index(), graph.pool);
    graph.graph.release(); // something in these versions may still ask the graph which capture is its own
  } catch (const std::exception&) {
  }
}

/** Ends a capture that shall not be used, in whatever state it is. Never throws. */
void drop(Graph& graph) {
  try {
    if (graph.stream.is_capturing()) {
      graph.graph->capture_end();
      return;
    }
  } catch (const std::exception&) {
    // Said by whatever made it fail.
  }
  mend(graph);
}

int64_t graph_open(at::Device device) {
  TORCH_CHECK(device.is_cuda(), "graphs are for CUDA devices, not for ", device);
  TORCH_CHECK(open_graph < 0, "graph ", open_graph, " is still being made");
  const c10::DeviceIndex index =
      device.has_index() ? device.index() : static_cast<c10::DeviceIndex>(c10::cuda::current_device());
  const c10::cuda::CUDAGuard guard(index);
  const CUDAStream before = c10::cuda::getCurrentCUDAStream(index);
  if (streams.find(index) == streams.end())
    streams.emplace(index, c10::cuda::getStreamFromPool(/*isHighPriority=*/false, index));
  const CUDAStream stream = streams.at(index);
  TORCH_CHECK(stream != before, "the current stream is that of the graphs");
  auto graph = std::make_unique<at::cuda::CUDAGraph>();
  wait(stream, before);
  owner = std::this_thread::get_id();
  static int64_t next = 0; // a number is not used again, so that it never means another graph
  const int64_t number = next++;
  graphs.emplace(number, Graph{std::move(graph), at::cuda::graph_pool_handle(), stream, before});
  open_graph = number;
  c10::cuda::setCurrentCUDAStream(stream);
  return number;
}

void graph_begin(int64_t number) {
  Graph& graph = graph_of(number);
  TORCH_CHECK(graph.state == State::Open, "graph ", number, " has been captured");
  const c10::cuda::CUDAGuard guard(graph.stream.device_index());
  graph.state = State::Capturing; // also where the call fails: part of it may have been done
  // What other threads do, such as NCCL's, is no matter of ours.
  graph.graph->capture_begin(graph.pool, cudaStreamCaptureModeThreadLocal);
}

void graph_end(int64_t number) {
  Graph& graph = graph_of(number);
  TORCH_CHECK(graph.state == State::Capturing, "graph ", number, " is not being captured");
  const c10::cuda::CUDAGuard guard(graph.stream.device_index());
  try {
    graph.graph->capture_end();
  } catch (const std::exception&) {
    graph.state = State::Failed;
    mend(graph);
    restore(graph);
    throw;
  }
  graph.state = State::Ready;
  restore(graph);
}

void graph_replay(int64_t number) {
  Graph& graph = graph_of(number);
  TORCH_CHECK(graph.state == State::Ready, "graph ", number, " has not been captured");
  const c10::cuda::CUDAGuard guard(graph.stream.device_index());
  graph.graph->replay();
}

/**
 * Frees a graph that is not being made. Replays that are queued go on: CUDA frees a graph in flight only when it is done
 * (cuGraphExecDestroy: "it will not be terminated, but rather freed asynchronously on completion"). The memory of its pool may
 * be given back to the device from now on, for which the allocator waits for the graph's stream alone; so that is made to wait
 * for the stream of the replays.
 */
void free_graph(int64_t number) {
  Graph& graph = graph_of(number);
  const c10::cuda::CUDAGuard guard(graph.stream.device_index());
  wait(graph.stream, c10::cuda::getCurrentCUDAStream(graph.stream.device_index()));
  graphs.erase(number);
}

void graph_close(int64_t number) {
  const State state = graph_of(number).state;
  TORCH_CHECK(state == State::Ready || state == State::Failed, "graph ", number, " is still being made");
  free_graph(number);
}

void graph_abort(int64_t number) {
  Graph& graph = graph_of(number);
  {
    const c10::cuda::CUDAGuard guard(graph.stream.device_index());
    if (graph.state == State::Capturing) drop(graph);
    try {
      if (open_graph == number) restore(graph);
    } catch (const std::exception&) {
      // A device that has failed says so at the next call.
    }
  }
  graph.state = State::Failed;
  try {
    free_graph(number);
  } catch (const std::exception&) {
    graphs.erase(number);
  }
}

TORCH_LIBRARY_FRAGMENT(alitok, library) {
  // Makes the stream of a device's graphs current, for work that is then to be captured. One graph is made at a time.
  library.def("graph_open(Device device) -> int", graph_open);
  library.def("graph_begin(int graph) -> ()", graph_begin);
  // Where it throws, the former stream is current again; the graph is to be freed.
  library.def("graph_end(int graph) -> ()", graph_end);
  // Queues the graph's work on the current stream, and waits for nothing.
  library.def("graph_replay(int graph) -> ()", graph_replay);
  // Gives up a graph in whatever state: what was current before is so again, and the graph is freed.
  library.def("graph_abort(int graph) -> ()", graph_abort);
  library.def("graph_close(int graph) -> ()", graph_close);
}

}  // namespace
}  // namespace alitok::cuda

namespace c10 {
REGISTER_FREE_MEMORY_CALLBACK(alitok_graphs, alitok::cuda::Settle);
}  // namespace c10
