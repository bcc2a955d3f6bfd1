#include "emulator.h"

#include <csetjmp>
#include <limits>
#include <memory>
#include <stdexcept>
#include <vector>

#include <ucontext.h>

namespace emulator {

Dimension thread, block, threads, blocks;

namespace {

constexpr size_t STACK = 128 << 10;
constexpr unsigned WARP = 32;

enum class State { Ready, AtWarp, AtBlock, Done };

struct Fiber {
  std::unique_ptr<char[]> stack;
  ucontext_t start;
  jmp_buf place; // saved without the signal mask, which would cost a system call
  bool entered = false;
  State state = State::Done;
};

std::vector<std::unique_ptr<Fiber>>& fibers = *new std::vector<std::unique_ptr<Fiber>>();
std::vector<float> memory;
std::vector<uint64_t> slots;
jmp_buf scheduler;
ucontext_t home;
Fiber* running;
const std::function<void()>* body;

/** Returns to the scheduler. */
void leave(State state) {
  running->state = state;
  if (_setjmp(running->place) == 0) _longjmp(scheduler, 1);
}

void fiber_main() {
  for (;;) {
    (*body)();
    leave(State::Done);
  }
}

/** Runs a thread until it waits or ends. */
void resume(unsigned index) {
  running = fibers[index].get();
  thread.x = index;
  if (_setjmp(scheduler) != 0) return;
  if (running->entered) _longjmp(running->place, 1);
  running->entered = true;
  setcontext(&running->start);
}

/** Makes threads `first` to `last` - 1 ready if all of them, apart from those that have ended, wait in `state`. */
bool release(unsigned first, unsigned last, State state) {
  bool any = false;
  for (unsigned i = first; i < last; i++) {
    const State own = fibers[i]->state;
    if (own != state && own != State::Done) return false;
    any = any || own == state;
  }
  for (unsigned i = first; i < last; i++)
    if (fibers[i]->state == state) fibers[i]->state = State::Ready;
  return any;
}

void run_block(unsigned count, bool backwards) {
  for (unsigned i = 0; i < count; i++) fibers[i]->state = State::Ready;
  for (;;) {
    for (unsigned i = 0; i < count; i++) {
      const unsigned index = backwards ? count - 1 - i : i;
      if (fibers[index]->state == State::Ready) resume(index);
    }
    bool released = false;
    for (unsigned first = 0; first < count; first += WARP)
      released = release(first, std::min(first + WARP, count), State::AtWarp) || released;
    released = released || release(0, count, State::AtBlock);
    if (released) continue;
    for (unsigned i = 0; i < count; i++)
      if (fibers[i]->state != State::Done) throw std::runtime_error("threads wait for each other at different barriers");
    return;
  }
}

}  // namespace

void sync_warp() { leave(State::AtWarp); }
void sync_block() { leave(State::AtBlock); }
uint64_t& slot(unsigned lane) { return slots[thread.x / WARP * WARP + lane]; }
float* shared_memory() { return memory.data(); }

void run(const std::function<void()>& kernel, unsigned count_of_blocks, unsigned count, size_t shared_bytes, bool backwards) {
  while (fibers.size() < count) {
    auto fiber = std::make_unique<Fiber>();
    fiber->stack.reset(new char[STACK]);
    getcontext(&fiber->start);
    fiber->start.uc_stack.ss_sp = fiber->stack.get();
    fiber->start.uc_stack.ss_size = STACK;
    fiber->start.uc_link = &home;
    makecontext(&fiber->start, fiber_main, 0);
    fibers.push_back(std::move(fiber));
  }
  body = &kernel;
  threads = {count};
  blocks = {count_of_blocks};
  slots.assign((count + WARP - 1) / WARP * WARP, 0);
  for (unsigned i = 0; i < count_of_blocks; i++) {
    block = {backwards ? count_of_blocks - 1 - i : i};
    memory.assign(shared_bytes / sizeof(float), std::numeric_limits<float>::quiet_NaN());
    run_block(count, backwards);
  }
}

}  // namespace emulator
