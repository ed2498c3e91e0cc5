// What a device's driver takes for itself on one CPU, with plain reads and writes.
// Moves a godwit_synth device's state to another of the same kernel, STOP_COPY only, by read(2) and
// write(2) of one buffer of 1 MiB in one thread: no network, no second buffer, no checks but the
// driver's. With --tcp by two processes, which read and send, receive and write over one connection
// with blocking calls and nothing else.
//
//   driver_alone [--tcp] SOURCE TARGET
//
// Both are device folders, /sys/bus/mdev/devices/UUID. Prints a line of JSON; times are of
// CLOCK_MONOTONIC, CPU seconds of user and kernel, of both processes.

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <exception>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include "raw_device.h"

namespace godwit::lab {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kBufferBytes = 1 << 20;  // of each process

double Milliseconds(Clock::duration time) {
  return std::chrono::duration<double, std::milli>(time).count();
}

double CpuSeconds(int who) {
  rusage usage = {};
  Expect(getrusage(who, &usage) == 0, "getrusage");
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

void Change(const RawDevice& device, uint32_t state, UniqueFd* data_fd = nullptr) {
  const int error = device.SetState(state, data_fd);
  Expect(error == 0,
         device.path() + " to " + std::string(StateName(state)) + ": " + std::strerror(error));
}

// Returns how many bytes there were: less than were asked for at the end only.
size_t ReadFully(int fd, std::vector<char>& buffer) {
  size_t done = 0;
  while (done < buffer.size()) {
    const ssize_t got = read(fd, buffer.data() + done, buffer.size() - done);
    Expect(got >= 0, std::string("read: ") + std::strerror(errno));
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

void WriteFully(int fd, const char* bytes, size_t count) {
  for (size_t done = 0; done < count;) {
    const ssize_t written = write(fd, bytes + done, count - done);
    Expect(written > 0, std::string("write: ") + std::strerror(errno));
    done += static_cast<size_t>(written);
  }
}

uint64_t Copy(int from, int to) {
  std::vector<char> buffer(kBufferBytes);
  uint64_t bytes = 0;
  while (const size_t got = ReadFully(from, buffer)) {
    WriteFully(to, buffer.data(), got);
    bytes += got;
  }
  return bytes;
}

struct Connection {
  UniqueFd sender;
  UniqueFd receiver;
};

Connection Connect() {
  const UniqueFd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  auto* const name = reinterpret_cast<sockaddr*>(&address);
  socklen_t length = sizeof(address);
  Expect(listener.valid() && bind(listener.get(), name, length) == 0 &&
             listen(listener.get(), 1) == 0 && getsockname(listener.get(), name, &length) == 0,
         "listen");
  Connection made;
  made.sender = UniqueFd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  Expect(made.sender.valid() && connect(made.sender.get(), name, length) == 0, "connect");
  made.receiver = UniqueFd(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  Expect(made.receiver.valid(), "accept");
  const int on = 1;
  Expect(setsockopt(made.sender.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0,
         "TCP_NODELAY");
  return made;
}

// The source's side is a process of its own. Returns when the target's has read to the end.
uint64_t CopyOverTcp(int saving, int resuming) {
  Connection connection = Connect();
  const pid_t source = fork();
  Expect(source >= 0, "fork");
  if (source == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    connection.receiver.Reset();
    Copy(saving, connection.sender.get());
    _exit(0);
  }
  connection.sender.Reset();
  const uint64_t bytes = Copy(connection.receiver.get(), resuming);
  int status = 0;
  Expect(waitpid(source, &status, 0) == source && status == 0, "the source's side failed");
  return bytes;
}

void Run(const std::string& source_path, const std::string& target_path, bool over_tcp) {
  const RawDevice source(source_path);
  const RawDevice target(target_path);
  const auto begin = Clock::now();
  UniqueFd saving;
  UniqueFd resuming;
  Change(source, kStopCopy, &saving);
  Change(target, kResuming, &resuming);
  const uint64_t bytes =
      over_tcp ? CopyOverTcp(saving.get(), resuming.get()) : Copy(saving.get(), resuming.get());
  Change(source, kStop);
  Change(target, kRunning);
  const auto all = Clock::now() - begin;
  std::cout << "{\"total_ms\": " << Milliseconds(all) << ", \"downtime_ms\": " << Milliseconds(all)
            << ", \"bytes\": " << bytes
            << ", \"cpu_s\": " << CpuSeconds(RUSAGE_SELF) + CpuSeconds(RUSAGE_CHILDREN)
            << ", \"memory_mib\": " << (over_tcp ? 2 : 1) << "}\n";
}

}  // namespace
}  // namespace godwit::lab

int main(int argc, char** argv) {
  const bool over_tcp = argc == 4 && std::string_view(argv[1]) == "--tcp";
  if (argc != 3 && !over_tcp) {
    std::cerr << "usage: driver_alone [--tcp] SOURCE TARGET\n";
    return 2;
  }
  try {
    godwit::lab::Run(argv[argc - 2], argv[argc - 1], over_tcp);
  } catch (const std::exception& error) {
    std::cerr << "driver_alone: " << error.what() << '\n';
    return 1;
  }
}
