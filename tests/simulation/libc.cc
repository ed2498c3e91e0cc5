#include "tests/simulation/libc.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstring>
#include <ctime>
#include <deque>
#include <vector>

#include "base/check.h"
#include "tests/simulation/hollow_device.h"
#include "tests/simulation/network.h"
#include "tests/simulation/scheduler.h"

namespace godwit::simulation {
namespace {

Network* the_network = nullptr;
int the_processors = 1;  // of each of its hosts

// The C library's function of that name, behind ours.
template <typename Function>
Function* Real(const char* name) {
  void* const found = ::dlsym(RTLD_NEXT, name);
  GODWIT_CHECK(found != nullptr);
  return reinterpret_cast<Function*>(found);
}

#define GODWIT_REAL(name)                                            \
  ([]() -> decltype(&::name) {                                       \
    static const auto real_function = Real<decltype(::name)>(#name); \
    return real_function;                                            \
  }())

bool IsSimulated(int fd) { return the_network != nullptr && the_network->Has(fd); }

int MakeFd() { return ::eventfd(0, EFD_CLOEXEC); }

// Makes the open file not block for as long as it lives. Nobody else sees it: there is one thread.
class DontBlock {
 public:
  explicit DontBlock(int fd) : fd_(fd), flags_(::fcntl(fd, F_GETFL)) {
    if (flags_ >= 0) ::fcntl(fd_, F_SETFL, flags_ | O_NONBLOCK);
  }
  ~DontBlock() {
    const int error = errno;
    if (flags_ >= 0) ::fcntl(fd_, F_SETFL, flags_);
    errno = error;
  }
  DontBlock(const DontBlock&) = delete;
  DontBlock& operator=(const DontBlock&) = delete;

 private:
  const int fd_;
  const int flags_;
};

Duration FromTimespec(const timespec& time) {
  return Duration(time.tv_sec * 1'000'000'000 + time.tv_nsec);
}

// Whether any of them has something; fills in what.
int PollAll(pollfd* fds, nfds_t count) {
  int ready = 0;
  for (nfds_t i = 0; i < count; ++i) {
    fds[i].revents = fds[i].fd < 0 ? short{0} : PollNow(fds[i].fd, fds[i].events);
    ready += fds[i].revents != 0 ? 1 : 0;
  }
  return ready;
}

int PollUntil(pollfd* fds, nfds_t count, Duration timeout) {
  Scheduler& scheduler = *Scheduler::Current();
  if (timeout.count() == 0) {
    scheduler.MaybeYield();
  } else {
    scheduler.Wait(
        "poll(2)", [=] { return PollAll(fds, count) > 0; },
        timeout == kNever ? kNever : scheduler.now() + timeout);
  }
  return PollAll(fds, count);
}

void WaitFor(int fd, short events) {
  Scheduler::Current()->Wait(events == POLLIN ? "an fd to read" : "an fd to write",
                             [=] { return PollNow(fd, events) != 0; });
}

// A fiber has its own signal mask, but a signal that waits behind it would hit another: SIGPIPE is
// ignored while fibers run, and who would have died of it is found here.
void CheckBrokenPipe() {
  sigset_t blocked;
  GODWIT_CHECK(::pthread_sigmask(SIG_SETMASK, nullptr, &blocked) == 0);
  GODWIT_CHECK(sigismember(&blocked, SIGPIPE) == 1);
}

// Who waits on which condition variable.
struct Waiter {
  const void* condition = nullptr;
  bool woken = false;
};
std::deque<Waiter*>& Waiters() {
  static auto* const waiters = new std::deque<Waiter*>();
  return *waiters;
}

void LockMutex(pthread_mutex_t* mutex) {
  const auto try_lock = GODWIT_REAL(pthread_mutex_trylock);
  if (try_lock(mutex) == 0) return;
  Scheduler::Current()->Wait("a mutex", [=] { return try_lock(mutex) == 0; });
}

int WaitOnCondition(pthread_cond_t* condition, pthread_mutex_t* mutex, Duration deadline) {
  Scheduler& scheduler = *Scheduler::Current();
  Waiter waiter{condition, false};
  Waiters().push_back(&waiter);
  GODWIT_REAL(pthread_mutex_unlock)(mutex);
  const bool spurious = scheduler.random().OneIn(64);
  const bool woken = scheduler.Wait(
      "a condition variable", [&] { return waiter.woken || spurious; }, deadline);
  Waiters().erase(std::find(Waiters().begin(), Waiters().end(), &waiter));
  LockMutex(mutex);
  return woken ? 0 : ETIMEDOUT;
}

void WakeWaiters(const pthread_cond_t* condition, bool all) {
  std::vector<Waiter*> sleeping;
  for (Waiter* waiter : Waiters()) {
    if (waiter->condition == condition && !waiter->woken) sleeping.push_back(waiter);
  }
  if (sleeping.empty()) return;
  if (all) {
    for (Waiter* waiter : sleeping) waiter->woken = true;
  } else {
    sleeping[Scheduler::Current()->random().Below(sleeping.size())]->woken = true;
  }
}

}  // namespace

void UseNetwork(Network* network, int processors) {
  the_network = network;
  the_processors = processors;
}

bool IsNonBlocking(int fd) {
  const int flags = ::fcntl(fd, F_GETFL);
  return flags >= 0 && (flags & O_NONBLOCK) != 0;
}

bool IsByteStream(int fd) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return false;
  if (S_ISFIFO(info.st_mode)) return true;
  int type = 0;
  socklen_t length = sizeof(type);
  return S_ISSOCK(info.st_mode) &&
         GODWIT_REAL(getsockopt)(fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0 &&
         type == SOCK_STREAM;
}

short PollNow(int fd, short events) {
  if (IsSimulated(fd)) return the_network->Poll(fd, events);
  pollfd one = {fd, events, 0};
  return GODWIT_REAL(poll)(&one, 1, 0) > 0 ? one.revents : short{0};
}

ssize_t ReadNow(int fd, void* bytes, size_t count) {
  if (IsSimulated(fd)) return the_network->Receive(fd, bytes, count, false);
  if (HollowStream* const stream = HollowStream::Of(fd)) {
    return static_cast<ssize_t>(stream->Read(bytes, count));
  }
  const DontBlock now(fd);
  return GODWIT_REAL(read)(fd, bytes, count);
}

ssize_t ReceiveNow(int fd, void* bytes, size_t count) { return ReadNow(fd, bytes, count); }

ssize_t SendNow(int fd, const msghdr& message, size_t skip, size_t& total) {
  total = 0;
  for (size_t i = 0; i < message.msg_iovlen; ++i) total += message.msg_iov[i].iov_len;
  for (size_t i = 0; i < message.msg_iovlen; ++i) {
    const iovec& part = message.msg_iov[i];
    if (skip < part.iov_len) {
      return the_network->Send(fd, static_cast<const char*>(part.iov_base) + skip,
                               part.iov_len - skip);
    }
    skip -= part.iov_len;
  }
  return 0;
}

}  // namespace godwit::simulation

using namespace godwit::simulation;  // NOLINT: what follows is C's

// The names and types are the C library's; its parameters have names that are reserved to it.
// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name)
extern "C" {

int clock_gettime(clockid_t clock, timespec* time) {
  const Scheduler* const scheduler = Scheduler::Current();
  if (scheduler == nullptr) return GODWIT_REAL(clock_gettime)(clock, time);
  time->tv_sec = scheduler->now().count() / 1'000'000'000;
  time->tv_nsec = scheduler->now().count() % 1'000'000'000;
  return 0;
}

int nanosleep(const timespec* time, timespec* left) {
  Scheduler* const scheduler = Scheduler::Current();
  if (scheduler == nullptr) return GODWIT_REAL(nanosleep)(time, left);
  scheduler->Wait(
      "time to pass", [] { return false; }, scheduler->now() + FromTimespec(*time));
  return 0;
}

int clock_nanosleep(clockid_t clock, int flags, const timespec* time, timespec* left) {
  Scheduler* const scheduler = Scheduler::Current();
  if (scheduler == nullptr) return GODWIT_REAL(clock_nanosleep)(clock, flags, time, left);
  const Duration from = (flags & TIMER_ABSTIME) != 0 ? Duration(0) : scheduler->now();
  scheduler->Wait(
      "time to pass", [] { return false; }, from + FromTimespec(*time));
  return 0;
}

ssize_t getrandom(void* bytes, size_t count, unsigned flags) {
  Scheduler* const scheduler = Scheduler::Current();
  if (scheduler == nullptr) return GODWIT_REAL(getrandom)(bytes, count, flags);
  auto* const out = static_cast<unsigned char*>(bytes);
  for (size_t i = 0; i < count; ++i)
    out[i] = static_cast<unsigned char>(scheduler->random().Next());
  return static_cast<ssize_t>(count);
}

// --- Threads ---

int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*body)(void*),
                   void* argument) {
  Scheduler* const scheduler = Scheduler::Current();
  if (scheduler == nullptr) return GODWIT_REAL(pthread_create)(thread, attributes, body, argument);
  *thread = static_cast<pthread_t>(
      scheduler->Spawn(scheduler->host(), "a thread", [=] { (void)body(argument); }));
  scheduler->MaybeYield();
  return 0;
}

int pthread_join(pthread_t thread, void** result) {
  Scheduler* const scheduler = Scheduler::Current();
  if (scheduler == nullptr) return GODWIT_REAL(pthread_join)(thread, result);
  scheduler->Join(static_cast<uint64_t>(thread));
  return 0;
}

int pthread_mutex_lock(pthread_mutex_t* mutex) noexcept {
  Scheduler* const scheduler = Scheduler::Current();
  if (scheduler == nullptr) return GODWIT_REAL(pthread_mutex_lock)(mutex);
  scheduler->MaybeYield();
  LockMutex(mutex);
  return 0;
}

int pthread_cond_wait(pthread_cond_t* condition, pthread_mutex_t* mutex) {
  if (Scheduler::Current() == nullptr) return GODWIT_REAL(pthread_cond_wait)(condition, mutex);
  return WaitOnCondition(condition, mutex, kNever);
}

int pthread_cond_clockwait(pthread_cond_t* condition, pthread_mutex_t* mutex, clockid_t clock,
                           const timespec* deadline) {
  if (Scheduler::Current() == nullptr) {
    return GODWIT_REAL(pthread_cond_clockwait)(condition, mutex, clock, deadline);
  }
  return WaitOnCondition(condition, mutex, FromTimespec(*deadline));
}

int pthread_cond_signal(pthread_cond_t* condition) noexcept {
  if (Scheduler::Current() == nullptr) return GODWIT_REAL(pthread_cond_signal)(condition);
  WakeWaiters(condition, /*all=*/false);
  return 0;
}

int pthread_cond_broadcast(pthread_cond_t* condition) noexcept {
  if (Scheduler::Current() == nullptr) return GODWIT_REAL(pthread_cond_broadcast)(condition);
  WakeWaiters(condition, /*all=*/true);
  return 0;
}

// std::future waits by futex(2).
long syscall(long number, ...) noexcept {
  va_list list;
  va_start(list, number);
  long arguments[6];
  for (long& argument : arguments) argument = va_arg(list, long);
  va_end(list);
  Scheduler* const scheduler = Scheduler::Current();
  if (scheduler == nullptr || number != SYS_futex) {
    return GODWIT_REAL(syscall)(number, arguments[0], arguments[1], arguments[2], arguments[3],
                                arguments[4], arguments[5]);
  }
  const auto command = static_cast<int>(arguments[1]) & FUTEX_CMD_MASK;
  if (command != FUTEX_WAIT && command != FUTEX_WAIT_BITSET) return 0;  // who is woken looks itself
  const auto* const word = reinterpret_cast<const volatile int*>(arguments[0]);
  const int expected = static_cast<int>(arguments[2]);
  scheduler->Wait("a futex", [=] { return *word != expected; });
  return 0;
}

// --- Files and sockets ---

int poll(pollfd* fds, nfds_t count, int timeout_ms) {
  if (Scheduler::Current() == nullptr) return GODWIT_REAL(poll)(fds, count, timeout_ms);
  return PollUntil(fds, count, timeout_ms < 0 ? kNever : std::chrono::milliseconds(timeout_ms));
}

int ppoll(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* signals) {
  if (Scheduler::Current() == nullptr) return GODWIT_REAL(ppoll)(fds, count, timeout, signals);
  return PollUntil(fds, count, timeout == nullptr ? kNever : FromTimespec(*timeout));
}

ssize_t read(int fd, void* bytes, size_t count) {
  if (Scheduler::Current() == nullptr) return GODWIT_REAL(read)(fd, bytes, count);
  Scheduler::Current()->MaybeYield();
  if (!IsNonBlocking(fd)) WaitFor(fd, POLLIN);
  return ReadNow(fd, bytes, count);
}

ssize_t write(int fd, const void* bytes, size_t count) {
  if (Scheduler::Current() == nullptr) return GODWIT_REAL(write)(fd, bytes, count);
  Scheduler::Current()->MaybeYield();
  if (HollowStream* const stream = HollowStream::Of(fd)) {
    return static_cast<ssize_t>(stream->Write(bytes, count));
  }
  const auto real = GODWIT_REAL(write);
  const bool waits = !IsNonBlocking(fd);
  // A signal may end it early.
  if (count > 1 && IsByteStream(fd) && Scheduler::Current()->random().OneIn(8)) {
    count = Scheduler::Current()->random().Between(1, count);
  }
  size_t done = 0;
  while (true) {
    ssize_t written = 0;
    {
      const DontBlock now(fd);
      written = real(fd, static_cast<const char*>(bytes) + done, count - done);
    }
    if (written >= 0) done += static_cast<size_t>(written);
    if (written < 0 && errno == EPIPE) CheckBrokenPipe();
    if (written < 0 && (errno != EAGAIN || !waits)) {
      return done > 0 ? static_cast<ssize_t>(done) : -1;
    }
    if (done == count || written == 0) return static_cast<ssize_t>(done);
    if (!waits) return static_cast<ssize_t>(done);
    WaitFor(fd, POLLOUT);
  }
}

int close(int fd) {
  if (Scheduler::Current() == nullptr) return GODWIT_REAL(close)(fd);
  if (IsSimulated(fd)) the_network->Close(fd);
  HollowStream::Close(fd);
  return GODWIT_REAL(close)(fd);
}

int socket(int domain, int type, int protocol) noexcept {
  Scheduler* const scheduler = Scheduler::Current();
  if (scheduler == nullptr || (domain != AF_INET && domain != AF_INET6)) {
    return GODWIT_REAL(socket)(domain, type, protocol);
  }
  const int fd = MakeFd();
  if (fd >= 0 && (type & SOCK_NONBLOCK) != 0) ::fcntl(fd, F_SETFL, O_NONBLOCK);
  return fd < 0 ? fd : the_network->Socket(scheduler->host(), fd);
}

int bind(int fd, const sockaddr* address, socklen_t length) noexcept {
  if (Scheduler::Current() == nullptr || !IsSimulated(fd)) {
    return GODWIT_REAL(bind)(fd, address, length);
  }
  return the_network->Bind(fd, ntohs(reinterpret_cast<const sockaddr_in*>(address)->sin_port));
}

int listen(int fd, int backlog) noexcept {
  if (Scheduler::Current() == nullptr || !IsSimulated(fd)) return GODWIT_REAL(listen)(fd, backlog);
  return the_network->Listen(fd);
}

int connect(int fd, const sockaddr* address, socklen_t length) {
  if (Scheduler::Current() == nullptr || !IsSimulated(fd)) {
    return GODWIT_REAL(connect)(fd, address, length);
  }
  return the_network->Connect(fd, ntohs(reinterpret_cast<const sockaddr_in*>(address)->sin_port));
}

int accept4(int fd, sockaddr* address, socklen_t* length, int flags) {
  Scheduler* const scheduler = Scheduler::Current();
  if (scheduler == nullptr || !IsSimulated(fd)) {
    return GODWIT_REAL(accept4)(fd, address, length, flags);
  }
  if (!IsNonBlocking(fd)) WaitFor(fd, POLLIN);
  return the_network->Accept(fd, scheduler->host(), &MakeFd);
}

ssize_t recv(int fd, void* bytes, size_t count, int flags) {
  Scheduler* const scheduler = Scheduler::Current();
  if (scheduler == nullptr || !IsSimulated(fd)) return GODWIT_REAL(recv)(fd, bytes, count, flags);
  scheduler->MaybeYield();
  if ((flags & MSG_DONTWAIT) == 0 && !IsNonBlocking(fd)) WaitFor(fd, POLLIN);
  return the_network->Receive(fd, bytes, count, (flags & MSG_PEEK) != 0);
}

ssize_t send(int fd, const void* bytes, size_t count, int flags) {
  Scheduler* const scheduler = Scheduler::Current();
  if (scheduler == nullptr || !IsSimulated(fd)) return GODWIT_REAL(send)(fd, bytes, count, flags);
  scheduler->MaybeYield();
  if ((flags & MSG_DONTWAIT) == 0 && !IsNonBlocking(fd)) WaitFor(fd, POLLOUT);
  const ssize_t sent = the_network->Send(fd, bytes, count);
  if (sent < 0 && errno == EPIPE && (flags & MSG_NOSIGNAL) == 0) CheckBrokenPipe();
  return sent;
}

int shutdown(int fd, int how) noexcept {
  if (Scheduler::Current() == nullptr || !IsSimulated(fd)) return GODWIT_REAL(shutdown)(fd, how);
  return the_network->Shutdown(fd, how != SHUT_WR, how != SHUT_RD);
}

int getsockname(int fd, sockaddr* address, socklen_t* length) noexcept {
  if (Scheduler::Current() == nullptr || !IsSimulated(fd)) {
    return GODWIT_REAL(getsockname)(fd, address, length);
  }
  const sockaddr_in ours = the_network->Address(fd, /*of_peer=*/false);
  std::memcpy(address, &ours, sizeof(ours));
  *length = sizeof(ours);
  return 0;
}

int getpeername(int fd, sockaddr* address, socklen_t* length) noexcept {
  if (Scheduler::Current() == nullptr || !IsSimulated(fd)) {
    return GODWIT_REAL(getpeername)(fd, address, length);
  }
  const sockaddr_in theirs = the_network->Address(fd, /*of_peer=*/true);
  std::memcpy(address, &theirs, sizeof(theirs));
  *length = sizeof(theirs);
  return 0;
}

int setsockopt(int fd, int level, int option, const void* value, socklen_t length) noexcept {
  if (Scheduler::Current() == nullptr || !IsSimulated(fd)) {
    return GODWIT_REAL(setsockopt)(fd, level, option, value, length);
  }
  if (level == SOL_SOCKET && option == SO_LINGER) the_network->ResetOnClose(fd);
  return 0;
}

int sched_getaffinity(pid_t pid, size_t bytes, cpu_set_t* processors) noexcept {
  if (Scheduler::Current() == nullptr)
    return GODWIT_REAL(sched_getaffinity)(pid, bytes, processors);
  CPU_ZERO_S(bytes, processors);
  for (int i = 0; i < the_processors; ++i) CPU_SET_S(static_cast<size_t>(i), bytes, processors);
  return 0;
}

int getsockopt(int fd, int level, int option, void* value, socklen_t* length) noexcept {
  if (Scheduler::Current() == nullptr || !IsSimulated(fd)) {
    return GODWIT_REAL(getsockopt)(fd, level, option, value, length);
  }
  std::memset(value, 0, *length);
  if (level == SOL_SOCKET && option == SO_ERROR) {
    const int error = the_network->TakeError(fd);
    std::memcpy(value, &error, sizeof(error));
  }
  if (level == IPPROTO_TCP && option == TCP_INFO) {
    tcp_info info{};
    info.tcpi_rtt = static_cast<uint32_t>(the_network->RoundTrip(fd).count() / 1000);
    std::memcpy(value, &info, std::min<size_t>(*length, sizeof(info)));
  }
  return 0;
}

}  // extern "C"
// NOLINTEND(readability-inconsistent-declaration-parameter-name)
