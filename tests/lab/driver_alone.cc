// What a device's driver takes for itself: the least that any transport can come to on one CPU.
// Moves a godwit_synth device's state to another of the same kernel, STOP_COPY only, by read(2) and
// write(2) of one buffer of 1 MiB in one thread: no network, no second buffer, no checks but the
// driver's.
//
//   driver_alone SOURCE TARGET
//
// Both are device folders, /sys/bus/mdev/devices/UUID. Prints a line of JSON; times are of
// CLOCK_MONOTONIC, CPU seconds of user and kernel.

#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <exception>
#include <iostream>
#include <string>
#include <vector>

#include "raw_device.h"

namespace godwit::lab {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kBufferBytes = 1 << 20;

double Milliseconds(Clock::duration time) {
  return std::chrono::duration<double, std::milli>(time).count();
}

double CpuSeconds() {
  rusage usage = {};
  Expect(getrusage(RUSAGE_SELF, &usage) == 0, "getrusage");
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

void Change(const RawDevice& device, uint32_t state, UniqueFd* data_fd = nullptr) {
  const int error = device.SetState(state, data_fd);
  Expect(error == 0,
         device.path() + " to " + std::string(StateName(state)) + ": " + std::strerror(error));
}

void Run(const std::string& source_path, const std::string& target_path) {
  const RawDevice source(source_path);
  const RawDevice target(target_path);
  std::vector<char> buffer(kBufferBytes);
  uint64_t bytes = 0;
  Clock::duration reading = {};
  const double cpu_before = CpuSeconds();
  const auto begin = Clock::now();
  UniqueFd saving;
  UniqueFd resuming;
  Change(source, kStopCopy, &saving);
  Change(target, kResuming, &resuming);
  for (;;) {
    const auto before = Clock::now();
    const ssize_t got = read(saving.get(), buffer.data(), buffer.size());
    reading += Clock::now() - before;
    Expect(got >= 0, std::string("read the source: ") + std::strerror(errno));
    if (got == 0) break;
    for (ssize_t done = 0; done < got;) {
      const ssize_t written =
          write(resuming.get(), buffer.data() + done, static_cast<size_t>(got - done));
      Expect(written > 0, std::string("write the target: ") + std::strerror(errno));
      done += written;
    }
    bytes += static_cast<uint64_t>(got);
  }
  Change(source, kStop);
  Change(target, kRunning);
  const auto all = Clock::now() - begin;
  std::cout << "{\"total_ms\": " << Milliseconds(all) << ", \"downtime_ms\": " << Milliseconds(all)
            << ", \"reading_ms\": " << Milliseconds(reading) << ", \"bytes\": " << bytes
            << ", \"cpu_s\": " << CpuSeconds() - cpu_before
            << ", \"memory_mib\": " << buffer.size() / kBufferBytes << "}\n";
}

}  // namespace
}  // namespace godwit::lab

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: driver_alone SOURCE TARGET\n";
    return 2;
  }
  try {
    godwit::lab::Run(argv[1], argv[2]);
  } catch (const std::exception& error) {
    std::cerr << "driver_alone: " << error.what() << '\n';
    return 1;
  }
}
