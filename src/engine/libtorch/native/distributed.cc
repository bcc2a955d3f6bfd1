// Distributed work over several processes with PyTorch's c10d: Gloo on the CPU, NCCL on CUDA devices.
//
// JavaScript never waits here without a time limit: joining runs on its own thread, a collective operation is started by
// one call and polled by another, and a third thread sends this process's heartbeat. The operators exist in every build;
// without c10d they report that it is missing.
#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/InferenceMode.h>
#include <torch/library.h>
#include <torch/version.h>

#if defined(USE_C10D_GLOO) || defined(USE_C10D_NCCL)
#define WITH_C10D
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#endif
#ifdef USE_C10D_GLOO
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#endif
#ifdef USE_C10D_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <future>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>

namespace alitok {
namespace {

using at::Tensor;

/** The communication backends of this build: 1 for Gloo, 2 for NCCL, 3 for both. */
int64_t backends() {
  int64_t found = 0;
#ifdef USE_C10D_GLOO
  found |= 1;
#endif
#ifdef USE_C10D_NCCL
  found |= 2;
#endif
  return found;
}

Tensor bytes_of(const std::string& text) {
  Tensor bytes = at::empty({static_cast<int64_t>(text.size())}, at::kByte);
  std::copy(text.begin(), text.end(), bytes.data_ptr<uint8_t>());
  return bytes;
}

#ifdef WITH_C10D

using Clock = std::chrono::steady_clock;
using Milliseconds = std::chrono::milliseconds;

// The class whose methods are the collective operations.
#if TORCH_VERSION_MAJOR >= 2
using Group = c10d::Backend;
#else
using Group = c10d::ProcessGroup;
#endif
using Store = c10::intrusive_ptr<c10d::Store>;

Milliseconds milliseconds(double seconds) { return Milliseconds(static_cast<int64_t>(seconds * 1000)); }

/** Interval of the heartbeat. */
constexpr Milliseconds BEAT(1000);
/** Time between two checks of an operation in progress. */
constexpr std::chrono::microseconds NAP(100);
/** Extra time after the deadline in which the joining thread can report what it was waiting for. */
constexpr Milliseconds GRACE(10000);
/** How long leaving waits for the group to shut down. */
constexpr Milliseconds ENDING(10000);

/** How processes find each other. */
struct Meeting {
  std::string host;
  int port;
  int rank, size;
  bool serves;         // whether this process hosts the store, or another program does
  std::string prefix;  // of all keys: separates one attempt from the next
  double join_seconds, work_seconds;
  std::string backend;
  c10::Device device;  // that this process computes on
};

Store connect(const Meeting& meeting, bool serves) {
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(meeting.port);
  options.isServer = serves;
  options.waitWorkers = false;
  options.timeout = milliseconds(meeting.join_seconds);
  auto store = c10::make_intrusive<c10d::TCPStore>(meeting.host, options);
  return c10::make_intrusive<c10d::PrefixStore>(meeting.prefix, store);
}

std::string key(const char* name, int rank) { return std::string(name) + "/" + std::to_string(rank); }
std::vector<uint8_t> value(const std::string& text) { return {text.begin(), text.end()}; }

/** Sends this process's heartbeat and watches those of the others. */
class Pulse {
 public:
  Pulse(const Meeting& meeting, Store store)
      : store(std::move(store)), rank(meeting.rank), peers(meeting.size) {
    this->store->set(key("beat", rank), value("0"));
  }

  void start() {
    const auto now = Clock::now();
    for (Peer& peer : peers) peer.changed = now;
    thread = std::thread([this] { run(); });
  }

  /** The state of each rank: 0 alive, 1 silent for more than `seconds`, 2 failed, 3 ended normally. */
  Tensor states(double seconds) {
    const std::lock_guard<std::mutex> lock(mutex);
    Tensor states = at::zeros({static_cast<int64_t>(peers.size())}, at::kInt);
    const auto now = Clock::now();
    for (size_t i = 0; i < peers.size(); i++) {
      const Peer& peer = peers[i];
      int state = now - peer.changed > milliseconds(seconds) ? 1 : 0;
      if (peer.beat.rfind("failed", 0) == 0) state = 2;
      if (peer.beat == "done") state = 3;
      states.data_ptr<int>()[i] = static_cast<int>(i) == rank ? 0 : state;
    }
    return states;
  }

  /** The last message of a failed process. */
  std::string words(int64_t of) {
    const std::lock_guard<std::mutex> lock(mutex);
    const std::string& beat = peers.at(of).beat;
    return beat.rfind("failed ", 0) == 0 ? beat.substr(7) : "";
  }

  /** For how many seconds the store has not answered; 0 while it answers. */
  double lost() {
    const std::lock_guard<std::mutex> lock(mutex);
    return store_lost ? std::chrono::duration<double>(Clock::now() - lost_since).count() : 0;
  }

  /** Ends the thread; `last` remains as this process's last heartbeat. */
  void stop(const std::string& last) {
    {
      const std::lock_guard<std::mutex> lock(mutex);
      if (stopped) return;
      stopped = true;
    }
    waker.notify_all();
    if (thread.joinable()) thread.join();
    try {
      store->set(key("beat", rank), value(last));
    } catch (const std::exception&) {
      // The store is gone, so no other process could read this.
    }
  }

 private:
  struct Peer {
    std::string beat;
    Clock::time_point changed;
  };

  void run() {
    for (int64_t count = 1;; count++) {
      {
        std::unique_lock<std::mutex> lock(mutex);
        if (waker.wait_for(lock, BEAT, [this] { return stopped; })) return;
      }
      try {
        store->set(key("beat", rank), value(std::to_string(count)));
        for (size_t i = 0; i < peers.size(); i++) {
          const auto bytes = store->get(key("beat", static_cast<int>(i)));
          const std::lock_guard<std::mutex> lock(mutex);
          std::string beat(bytes.begin(), bytes.end());
          if (beat == peers[i].beat) continue;
          peers[i].beat = std::move(beat);
          peers[i].changed = Clock::now();
        }
      } catch (const std::exception&) {
        const std::lock_guard<std::mutex> lock(mutex);
        store_lost = true;
        lost_since = Clock::now();
        return;
      }
    }
  }

  const Store store;
  const int rank;
  std::vector<Peer> peers;
  std::thread thread;
  std::mutex mutex;
  std::condition_variable waker;
  bool stopped = false, store_lost = false;
  Clock::time_point lost_since;
};

#ifdef USE_C10D_NCCL
/**
 * Turns off PyTorch's own handling of failures. Its threads would end this process when another one is gone, before this
 * process could report which, and when a call to CUDA takes eight minutes. `completed` gets the same errors, and Pulse
 * detects silent processes. Variables that the user has set are kept.
 */
void leave_failures_to_us() {
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 2)
  // The new name would take precedence over the old one, which the user may have set.
  if (!std::getenv("NCCL_ASYNC_ERROR_HANDLING")) setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0", 0);
  setenv("TORCH_NCCL_ENABLE_MONITORING", "0", 0);
  setenv("TORCH_NCCL_DUMP_ON_TIMEOUT", "0", 0); // it also polls rank 0's store every second, and warns when that has left
#else
  setenv("NCCL_ASYNC_ERROR_HANDLING", "0", 0);
#endif
}
#endif

c10::intrusive_ptr<Group> open_group(const Meeting& meeting, const Store& store) {
#ifdef USE_C10D_NCCL
  if (meeting.backend == "nccl") {
    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = milliseconds(meeting.work_seconds);
    return c10::make_intrusive<c10d::ProcessGroupNCCL>(store, meeting.rank, meeting.size, options);
  }
#endif
#ifdef USE_C10D_GLOO
  if (meeting.backend == "gloo") {
    using Gloo = c10d::ProcessGroupGloo;
    auto options = Gloo::Options::create(milliseconds(meeting.work_seconds));
    options->threads = 2;
    const char* interface = std::getenv("GLOO_SOCKET_IFNAME");
    const bool one_machine = meeting.host == "localhost" || meeting.host.rfind("127.", 0) == 0;
    options->devices.push_back(interface     ? Gloo::createDeviceForInterface(interface)
                               : one_machine ? Gloo::createDeviceForHostname("127.0.0.1")
                                             : Gloo::createDefaultDevice());
    return c10::make_intrusive<Gloo>(store, meeting.rank, meeting.size, options);
  }
#endif
  TORCH_CHECK(false, "this libtorch has no ", meeting.backend);
}

/** Shuts down a group. */
void close_group([[maybe_unused]] Group& group) {
#if defined(USE_C10D_NCCL) && (TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 4))
  // Since 2.4 the destructor treats a missing shutdown as a mistake: it warns and aborts the communicators.
  if (auto* nccl = dynamic_cast<c10d::ProcessGroupNCCL*>(&group)) nccl->shutdown();
#endif
}

/** Waits for an operation until `deadline` and returns whether it has ended. Throws the error if it failed. */
bool ended(c10d::Work& work, Clock::time_point deadline) {
  while (!work.isCompleted()) {
    if (Clock::now() >= deadline) return false;
    std::this_thread::sleep_for(NAP);
  }
  // NCCL's work also counts as completed if it failed, and waiting for it does not throw.
  if (const auto failure = work.exception()) std::rethrow_exception(failure);
  work.wait(); // on CUDA, makes the current stream wait for this work; with Gloo, throws its error
  return true;
}

/** This process as a member of the group. */
struct Member {
  explicit Member(Meeting meeting) : meeting(std::move(meeting)) {}

  /** Runs on its own thread, because every step waits for other processes. */
  void join() {
    try {
      store = connect(meeting, meeting.serves);
      pulse = std::make_unique<Pulse>(meeting, connect(meeting, false));
      for (int rank = 0; rank < meeting.size; rank++)
        while (!store->check({key("beat", rank)})) {
          TORCH_CHECK(Clock::now() < deadline.load(), "rank ", rank, " has not come");
          std::this_thread::sleep_for(Milliseconds(20));
        }
      pulse->start();
      deadline = in_time(); // a new one for the next steps, even if the last process came late
      met = true;
      step = "opening the group";
      group = open_group(meeting, store);
      step = summing.c_str();
      first_sum();
      joined = true;
    } catch (const std::exception& failure) {
      error = c10::str(step.load(), ": ", failure.what());
      failed = true;
    }
  }

  /**
   * Checks that the processes can reach each other. NCCL connects them in the first operation, which waits for all of them
   * and never returns if one is gone. So it runs here, and not on JavaScript's thread in the first training step.
   */
  void first_sum() {
    const c10::DeviceGuard guard(meeting.device);
    std::vector<Tensor> one = {at::ones({1}, meeting.device)};
    TORCH_CHECK(ended(*group->allreduce(one), deadline), late());
  }

  Clock::time_point in_time() const { return Clock::now() + milliseconds(meeting.join_seconds); }
  std::string late() const { return c10::str("not done within ", meeting.join_seconds, " seconds"); }

  const Meeting meeting;
  std::atomic<Clock::time_point> deadline{in_time()};
  const std::string summing = "the first sum on " + meeting.device.str();
  std::atomic<const char*> step{"meeting at the store"}; // the current step of joining
  Store store;
  std::unique_ptr<Pulse> pulse;
  c10::intrusive_ptr<Group> group;
  std::thread joining;
  std::string error;
  /** Whether all processes have met at the store, whether the group works, and whether either has failed. */
  std::atomic<bool> met{false}, joined{false}, failed{false};
};

/** A collective operation in progress, with its tensors, which must live until it ends. */
struct Running {
  c10::intrusive_ptr<c10d::Work> work;
  std::vector<Tensor> inputs;
  std::vector<Tensor> results;
};

// Never destroyed automatically: threads may still use them when the process ends.
Member*& member = *new Member*(nullptr);
std::unordered_map<int64_t, Running>& running = *new std::unordered_map<int64_t, Running>();
int64_t next_work = 0;

void join(const std::string& host, int64_t port, int64_t rank, int64_t size, bool serves, const std::string& prefix,
          at::ArrayRef<double> seconds, const std::string& backend, at::Device device) {
  TORCH_CHECK(!member, "this process has joined already");
#ifdef USE_C10D_NCCL
  // On this thread, because JavaScript reads the environment, and no thread may do so while it is written.
  if (backend == "nccl") leave_failures_to_us();
#endif
  member = new Member(Meeting{host, static_cast<int>(port), static_cast<int>(rank), static_cast<int>(size), serves,
                              prefix, seconds[0], seconds[1], backend, device});
  member->joining = std::thread([] { member->join(); });
}

/** Whether all processes have met and can reach each other. */
bool joined() {
  TORCH_CHECK(member, "this process has not joined");
  TORCH_CHECK(!member->failed, member->error);
  if (!member->joined) {
    // The thread may be waiting forever.
    TORCH_CHECK(Clock::now() < member->deadline.load() + GRACE, member->step.load(), ": ", member->late());
    return false;
  }
  if (member->joining.joinable()) member->joining.join();
  return true;
}

int64_t keep(Running&& one) {
  running.emplace(next_work, std::move(one));
  return next_work++;
}

Group& group() {
  TORCH_CHECK(joined(), "the processes have not met yet");
  return *member->group;
}

/** Starts the sum over all processes; the results have the tensors' shapes and are views of one block. */
int64_t all_reduce(const at::TensorList tensors) {
  c10::InferenceMode off(false); // Gloo's threads, which write to these tensors, are not in inference mode
  at::NoGradGuard no_tape;
  std::vector<Tensor> parts;
  for (const Tensor& tensor : tensors) parts.push_back(tensor.reshape({-1}));
  Tensor flat = at::cat(parts);
  std::vector<Tensor> flats = {flat};
  auto work = group().allreduce(flats);
  std::vector<Tensor> results;
  int64_t start = 0;
  for (const Tensor& tensor : tensors) {
    results.push_back(flat.narrow(0, start, tensor.numel()).view(tensor.sizes()));
    start += tensor.numel();
  }
  return keep({std::move(work), std::move(flats), std::move(results)});
}

/** Starts to gather tensors of one shape from all processes: the result is (size, …). */
int64_t all_gather(const Tensor& tensor) {
  c10::InferenceMode off(false);
  at::NoGradGuard no_tape;
  std::vector<int64_t> shape = tensor.sizes().vec();
  shape.insert(shape.begin(), member->meeting.size);
  Tensor all = at::empty(shape, tensor.options());
  std::vector<std::vector<Tensor>> outputs(1);
  for (int64_t rank = 0; rank < shape[0]; rank++) outputs[0].push_back(all.select(0, rank));
  std::vector<Tensor> inputs = {at::empty(tensor.sizes(), tensor.options()).copy_(tensor)};
  auto work = group().allgather(outputs, inputs);
  return keep({std::move(work), std::move(inputs), {all}});
}

/** Starts to send the tensor of rank `root` to all processes. */
int64_t broadcast(const Tensor& tensor, int64_t root) {
  c10::InferenceMode off(false);
  at::NoGradGuard no_tape;
  std::vector<Tensor> tensors = {at::empty(tensor.sizes(), tensor.options()).copy_(tensor)};
  c10d::BroadcastOptions options;
  options.rootRank = root;
  auto work = group().broadcast(tensors, options);
  return keep({std::move(work), tensors, tensors});
}

/** Whether an operation has ended; waits for `seconds` at most. Throws the error if it failed. */
bool completed(int64_t work, double seconds) {
  return ended(*running.at(work).work, Clock::now() + milliseconds(seconds));
}

/** Returns the results of an operation that has ended, and removes the operation. */
std::vector<Tensor> take(int64_t work) {
  auto found = running.find(work);
  TORCH_CHECK(found != running.end(), "there is no such work");
  std::vector<Tensor> results = std::move(found->second.results);
  running.erase(found);
  return results;
}

Tensor states(double seconds) { return member && member->met ? member->pulse->states(seconds) : at::zeros({0}, at::kInt); }
Tensor words(int64_t rank) { return bytes_of(member->pulse->words(rank)); }
double store_lost() { return member && member->met ? member->pulse->lost() : 0; }

/** Shuts down the group on a separate thread, because that may wait for other processes; waits for at most ENDING. */
void end_group(c10::intrusive_ptr<Group> group, at::Device device) {
  auto end = std::make_shared<std::promise<void>>();
  const auto over = end->get_future();
  std::thread([group = std::move(group), device, end]() mutable {
    try {
      const c10::DeviceGuard guard(device);
      close_group(*group);
    } catch (const std::exception&) {
      // All work is done, so it does not matter if another process is gone.
    }
    group.reset();
    end->set_value();
  }).detach();
  over.wait_for(ENDING);
}

/** Leaves the group normally, after all processes' last operation, or after joining has failed. */
void leave() {
  if (!member) return;
  TORCH_CHECK(member->joined || member->failed, "this process is still joining");
  if (member->joining.joinable()) member->joining.join();
  // This comes first: the process with the store ends last, and shutting down the group may wait for that process too.
  if (member->pulse) member->pulse->stop("done");
  if (member->group) end_group(std::move(member->group), member->meeting.device);
  delete member;
  member = nullptr;
}

/** Tells the others why this process ends. It shuts nothing down, because other processes may still be working. */
void fail(const std::string& reason) {
  if (!member || !member->met) return;
  member->pulse->stop("failed " + reason);
}

#else

[[noreturn]] void missing() {
  TORCH_CHECK(false, "this libtorch is built without c10d; install one with distributed support");
}
void join(const std::string&, int64_t, int64_t, int64_t, bool, const std::string&, at::ArrayRef<double>,
          const std::string&, at::Device) {
  missing();
}
bool joined() { missing(); }
int64_t all_reduce(const at::TensorList) { missing(); }
int64_t all_gather(const Tensor&) { missing(); }
int64_t broadcast(const Tensor&, int64_t) { missing(); }
bool completed(int64_t, double) { missing(); }
std::vector<Tensor> take(int64_t) { missing(); }
Tensor states(double) { missing(); }
Tensor words(int64_t) { return bytes_of(""); }
double store_lost() { missing(); }
void leave() {}
void fail(const std::string&) {}

#endif

TORCH_LIBRARY_FRAGMENT(alitok, library) {
  library.def("distributed_backends() -> int", backends);
  library.def("distributed_join(str host, int port, int rank, int size, bool serves, str prefix, float[] seconds, "
              "str backend, Device device) -> ()",
              join);
  library.def("distributed_joined() -> bool", joined);
  library.def("distributed_all_reduce(Tensor[] tensors) -> int", all_reduce);
  library.def("distributed_all_gather(Tensor tensor) -> int", all_gather);
  library.def("distributed_broadcast(Tensor tensor, int root) -> int", broadcast);
  library.def("distributed_completed(int work, float seconds) -> bool", completed);
  library.def("distributed_take(int work) -> Tensor[]", take);
  library.def("distributed_states(float seconds) -> Tensor", states);
  library.def("distributed_words(int rank) -> Tensor", words);
  library.def("distributed_store_lost() -> float", store_lost);
  library.def("distributed_leave() -> ()", leave);
  library.def("distributed_fail(str reason) -> ()", fail);
}

}  // namespace
}  // namespace alitok
