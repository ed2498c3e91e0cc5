#include "tests/simulation/scheduler.h"

#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/check.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

namespace godwit::simulation {
namespace {

constexpr size_t kStackBytes = size_t{512} << 10;
constexpr size_t kGuardBytes = 4096;

// Stacks go from fiber to fiber: mapping one anew costs more than a turn.
std::vector<std::byte*>& FreeStacks() {
  static auto* const stacks = new std::vector<std::byte*>();
  return *stacks;
}

std::byte* TakeStack() {
  if (!FreeStacks().empty()) {
    std::byte* const stack = FreeStacks().back();
    FreeStacks().pop_back();
    return stack;
  }
  void* const mapped = ::mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  GODWIT_CHECK(mapped != MAP_FAILED);
  GODWIT_CHECK(::mprotect(mapped, kGuardBytes, PROT_NONE) == 0);
  return static_cast<std::byte*>(mapped) + kGuardBytes;
}

}  // namespace

struct Scheduler::Fiber {
  uint64_t number = 0;
  int host = 0;
  std::string name;
  std::function<void()> body;
  std::byte* stack = nullptr;
  ucontext_t context{};
  bool ended = false;

  // While it waits.
  const char* what = "its first turn";
  std::function<bool()> ready;  // empty: it is
  Duration deadline = kNever;
  bool was_ready = false;

#ifdef __SANITIZE_ADDRESS__
  void* fake_stack = nullptr;
  const void* bottom = nullptr;
  size_t bytes = 0;
#endif
};

Scheduler* Scheduler::current_ = nullptr;

Scheduler::Scheduler(uint64_t seed, Duration time_limit, Duration turn_max)
    : random_(seed),
      time_limit_(kClockStart + time_limit),
      turn_max_(turn_max),
      now_(kClockStart),
      main_(std::make_unique<Fiber>()) {}

Scheduler::~Scheduler() {
  for (const auto& fiber : fibers_) {
    if (fiber->ended) FreeStacks().push_back(fiber->stack);
  }
}

uint64_t Scheduler::Spawn(int host, std::string name, std::function<void()> body) {
  auto fiber = std::make_unique<Fiber>();
  fiber->number = fibers_.size() + 1;
  fiber->host = host;
  fiber->name = std::move(name);
  fiber->body = std::move(body);
  fiber->stack = TakeStack();
  GODWIT_CHECK(::getcontext(&fiber->context) == 0);
  fiber->context.uc_stack.ss_sp = fiber->stack;
  fiber->context.uc_stack.ss_size = kStackBytes;
  fiber->context.uc_link = nullptr;
#ifdef __SANITIZE_ADDRESS__
  fiber->bottom = fiber->stack;
  fiber->bytes = kStackBytes;
#endif
  // makecontext(3) passes ints only.
  const auto address = reinterpret_cast<uintptr_t>(fiber.get());
  ::makecontext(&fiber->context, reinterpret_cast<void (*)()>(&Scheduler::Enter), 2,
                static_cast<unsigned>(address >> 32), static_cast<unsigned>(address));
  alive_.push_back(fiber.get());
  fibers_.push_back(std::move(fiber));
  return fibers_.back()->number;
}

void Scheduler::Enter(unsigned fiber_high, unsigned fiber_low) {
  auto* const fiber =
      reinterpret_cast<Fiber*>((static_cast<uintptr_t>(fiber_high) << 32) | fiber_low);
  Scheduler* const scheduler = current_;
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, &scheduler->main_->bottom, &scheduler->main_->bytes);
#endif
  fiber->body();
  fiber->body = nullptr;
  fiber->ended = true;
  scheduler->SwitchBack(/*for_good=*/true);
}

void Scheduler::SwitchTo(Fiber& fiber) {
  running_ = &fiber;
  current_ = this;
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&main_->fake_stack, fiber.bottom, fiber.bytes);
#endif
  GODWIT_CHECK(::swapcontext(&main_->context, &fiber.context) == 0);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(main_->fake_stack, nullptr, nullptr);
#endif
  current_ = nullptr;
  running_ = nullptr;
}

void Scheduler::SwitchBack([[maybe_unused]] bool for_good) {
  Fiber& fiber = *running_;
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(for_good ? nullptr : &fiber.fake_stack, main_->bottom,
                                 main_->bytes);
#endif
  GODWIT_CHECK(::swapcontext(&fiber.context, &main_->context) == 0);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fiber.fake_stack, nullptr, nullptr);
#endif
}

std::string Scheduler::Run() {
  while (!AllEnded()) {
    Fiber* const fiber = PickReady();
    if (fiber == nullptr) {
      if (!JumpToNextEvent()) return Describe("nobody can go on");
      continue;
    }
    now_ += Duration(random_.Below(static_cast<uint64_t>(turn_max_.count())));
    if (now_ > time_limit_) return Describe("the time limit is over");
    ++turns_;
    fingerprint_ = (fingerprint_ ^ (fiber->number << 48) ^ static_cast<uint64_t>(now_.count())) *
                   0x100000001b3;
    SwitchTo(*fiber);
    if (fiber->ended) alive_.erase(std::find(alive_.begin(), alive_.end(), fiber));
  }
  return {};
}

bool Scheduler::AllEnded() const {
  return std::all_of(alive_.begin(), alive_.end(),
                     [this](const Fiber* fiber) { return killed(fiber->host); });
}

// In a random order, the first that is ready: each of them is as likely.
Scheduler::Fiber* Scheduler::PickReady() {
  for (size_t left = alive_.size(); left > 0; --left) {
    std::swap(alive_[random_.Below(left)], alive_[left - 1]);
    Fiber* const fiber = alive_[left - 1];
    if (killed(fiber->host)) continue;
    fiber->was_ready = !fiber->ready || fiber->ready();
    if (fiber->was_ready || fiber->deadline <= now_) return fiber;
  }
  return nullptr;
}

bool Scheduler::JumpToNextEvent() {
  Duration next = kNever;
  for (const Fiber* fiber : alive_) {
    if (!killed(fiber->host)) next = std::min(next, fiber->deadline);
  }
  if (next_event_) next = std::min(next, next_event_());
  if (next == kNever) return false;
  now_ = std::max(now_, next);
  return true;
}

bool Scheduler::Wait(const char* what, std::function<bool()> ready, Duration deadline) {
  const int error = errno;
  Fiber& fiber = *running_;
  fiber.what = what;
  fiber.ready = std::move(ready);
  fiber.deadline = deadline;
  SwitchBack(/*for_good=*/false);
  fiber.ready = nullptr;
  fiber.deadline = kNever;
  errno = error;
  return fiber.was_ready;
}

void Scheduler::MaybeYield() {
  if (random_.OneIn(4)) Wait("a turn", nullptr);
}

void Scheduler::Join(uint64_t fiber) {
  const Fiber* const awaited = fibers_[fiber - 1].get();
  Wait("the end of another", [awaited] { return awaited->ended; });
}

int Scheduler::host() const { return running_->host; }

void Scheduler::Kill(int host) { killed_hosts_.push_back(host); }

bool Scheduler::killed(int host) const {
  return std::find(killed_hosts_.begin(), killed_hosts_.end(), host) != killed_hosts_.end();
}

std::string Scheduler::Describe(const char* why) const {
  std::string text = why;
  for (const Fiber* fiber : alive_) {
    if (killed(fiber->host)) continue;
    text += "\n  fiber " + std::to_string(fiber->number) + " (" + fiber->name + ", host " +
            std::to_string(fiber->host) + ") waits for " + fiber->what;
  }
  return text;
}

}  // namespace godwit::simulation
