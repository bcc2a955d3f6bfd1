// CUDA graphs: work that is captured once and then launched as a whole, so that its many small kernels cost one launch. This
// file uses interfaces of recent versions of PyTorch; build.js leaves it out where it does not compile.
//
//   graph_open   makes another stream current. Work still runs as usual. Run it once before it is captured, so that libraries
//                create their handles and workspaces and kernels are loaded; neither can be captured.
//   graph_begin  from now on work is captured, not executed.
//   graph_end    makes the former stream current again. The graph can then be replayed there any number of times.
//
// Memory. When a tensor is freed, PyTorch's allocator gives its memory to later tensors of the stream that was current when
// the tensor was created, regardless of work on other streams. That is safe here because one thread queues all work, and each
// of the two streams waits for all work of the other one when it becomes current:
// - A tensor of the former stream that is freed between graph_open and graph_end gives its memory to tensors created after
//   graph_end, whose work runs after all work of the other stream. The same holds for a tensor of the other stream that is
//   freed after graph_end: the next graph_open waits for its last use. All graphs of a device share one stream, which also has
//   only one cuBLAS workspace.
// - Tensors created between graph_begin and graph_end get their memory from the graph's own pool. Nothing else uses that memory
//   before graph_close, even after the tensors are freed. Tensors that are kept hold the results of the last replay.
// - A tensor that a graph reads and that was created before graph_begin must be kept, at the same address, as long as the graph
//   is replayed. The allocator does not know that the graph uses that address.
// Memory that is returned to the device does not wait for the other stream: mapped pages ("expandable segments", which this
// engine asks for) are unmapped once the stream that they belong to is done, although another stream may still read them. So
// before the allocator looks for memory beyond what it has, the other stream is made to wait for the current one (Settle).
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
  Capturing, // and work on it is captured
  Ready,     // can be replayed
  Failed,    // can only be freed
};

struct Graph {
  std::unique_ptr<at::cuda::CUDAGraph> graph;
  decltype(at::cuda::graph_pool_handle()) pool;
  CUDAStream stream, before;
  State state = State::Open;
};

/** The graphs by number. Never destroyed, because CUDA may have shut down when the process ends. */
std::map<int64_t, Graph>& graphs = *new std::map<int64_t, Graph>();
/** The stream on which a device's graphs are captured, created for its first graph. */
std::map<c10::DeviceIndex, CUDAStream>& streams = *new std::map<c10::DeviceIndex, CUDAStream>();
/** The graph that is being made, or −1. */
int64_t open_graph = -1;
/** The thread that makes graphs; the current stream is the one of this thread. */
std::thread::id owner;

Graph& graph_of(int64_t number) {
  const auto found = graphs.find(number);
  TORCH_CHECK(found != graphs.end(), "there is no graph ", number);
  return found->second;
}

/** Makes `stream` wait for the work that is queued on `other` now. The host does not wait. */
void wait(const CUDAStream& stream, const CUDAStream& other) {
  c10::Event done(c10::DeviceType::CUDA);
  done.record(other.unwrap());
  done.block(stream.unwrap());
}

/** Runs before the allocator takes memory from the device or returns it; see above. */
class Settle : public c10::FreeMemoryCallback {
 public:
  bool Execute() override {
    // While a graph is made, the former stream gets no new work, and captured work cannot wait for another stream.
    if (open_graph >= 0 || streams.empty() || std::this_thread::get_id() != owner) return false;
    for (const auto& [device, stream] : streams) {
      const CUDAStream current = c10::cuda::getCurrentCUDAStream(device);
      if (current != stream) wait(stream, current);
    }
    return false; // no memory was freed
  }
};

/** Makes the former stream current again. It waits for all work of the graph's stream. */
void restore(Graph& graph) {
  open_graph = -1;
  c10::cuda::setCurrentCUDAStream(graph.before);
  wait(graph.before, graph.stream);
}

/**
 * Cleans up after a capture that ended in an error or could not begin. Up to PyTorch 2.11, the allocator still has such a
 * capture registered, and then never returns memory. Later versions clean up themselves, and the first call throws there;
 * the error is ignored. Never throws.
 */
void mend(Graph& graph) {
  try {
    c10::cuda::CUDACachingAllocator::endAllocateToPool(graph.stream.device_index(), graph.pool);
    c10::cuda::CUDACachingAllocator::releasePool(graph.stream.device_index(), graph.pool);
    graph.graph.release(); // leaked, because these versions may still ask the graph for its capture
  } catch (const std::exception&) {
  }
}

/** Ends a capture that will not be used, whatever its state. Never throws. */
void drop(Graph& graph) {
  try {
    if (graph.stream.is_capturing()) {
      graph.graph->capture_end();
      return;
    }
  } catch (const std::exception&) {
    // The call that failed has reported the error.
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
  static int64_t next = 0; // numbers are never reused, so that an old one cannot mean another graph
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
  graph.state = State::Capturing; // even if the call fails, because it may have been partly done
  // Calls by other threads, such as NCCL's, do not affect the capture.
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
 * Frees a graph that is not being made. Queued replays still run: CUDA frees a graph in flight only when it is done
 * (cuGraphExecDestroy: "it will not be terminated, but rather freed asynchronously on completion"). From now on, the memory of
 * its pool may be returned to the device. Before that, the allocator waits only for the graph's stream, so that stream is made
 * to wait for the stream of the replays.
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
      // A device that has failed reports an error at the next call.
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
  // Makes the stream of a device's graphs current, for work that will be captured. Only one graph can be made at a time.
  library.def("graph_open(Device device) -> int", graph_open);
  library.def("graph_begin(int graph) -> ()", graph_begin);
  // If it throws, the former stream is current again, and the graph must still be freed.
  library.def("graph_end(int graph) -> ()", graph_end);
  // Queues the graph's work on the current stream, without waiting.
  library.def("graph_replay(int graph) -> ()", graph_replay);
  // Discards a graph in any state: the former stream becomes current again, and the graph is freed.
  library.def("graph_abort(int graph) -> ()", graph_abort);
  library.def("graph_close(int graph) -> ()", graph_close);
}

}  // namespace
}  // namespace alitok::cuda

namespace c10 {
REGISTER_FREE_MEMORY_CALLBACK(alitok_graphs, alitok::cuda::Settle);
}  // namespace c10
