// What the software device costs by itself: the part of a session's time that a real device would
// not take.
#include <absl/types/span.h>
#include <benchmark/benchmark.h>
#include <unistd.h>

#include <cstddef>
#include <vector>

#include "base/units.h"
#include "vfio/soft_content.h"
#include "vfio/soft_device.h"

namespace godwit {
namespace {

constexpr size_t kBufferBytes = kMiB;
constexpr uint64_t kStreamBytes = kGiB;

void ContentFill(benchmark::State& state) {
  const SoftContent content(7);
  std::vector<std::byte> buffer(kBufferBytes);
  uint64_t offset = 0;
  for ([[maybe_unused]] auto _ : state) {
    content.Fill(offset, absl::MakeSpan(buffer));
    benchmark::ClobberMemory();
    offset += kBufferBytes;
  }
  state.SetBytesProcessed(static_cast<int64_t>(offset));
}
BENCHMARK(ContentFill);

void ContentCheck(benchmark::State& state) {
  const SoftContent content(7);
  std::vector<std::byte> buffer(kBufferBytes);
  content.Fill(0, absl::MakeSpan(buffer));
  for ([[maybe_unused]] auto _ : state) {
    benchmark::DoNotOptimize(content.FirstMismatch(0, buffer));
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(kBufferBytes));
}
BENCHMARK(ContentCheck);

// Source to target through one buffer: generator, pipe, read, write, pipe, checker.
void DeviceToDevice(benchmark::State& state) {
  std::vector<std::byte> buffer(kBufferBytes);
  for ([[maybe_unused]] auto _ : state) {
    const SoftDeviceOptions options = {.size_bytes = kStreamBytes, .seed = 7};
    SoftDevice source("source", options);
    SoftDevice target("target", options);
    const UniqueFd from = source.SetState(DeviceState::kStopCopy).value();
    const UniqueFd to = target.SetState(DeviceState::kResuming).value();
    ssize_t got = 0;
    while ((got = ::read(from.get(), buffer.data(), buffer.size())) > 0) {
      if (::write(to.get(), buffer.data(), static_cast<size_t>(got)) != got) break;
    }
    if (!target.SetState(DeviceState::kStop).ok()) state.SkipWithError("the stream was refused");
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(kStreamBytes));
}
BENCHMARK(DeviceToDevice)->UseRealTime()->MeasureProcessCPUTime();

}  // namespace
}  // namespace godwit
