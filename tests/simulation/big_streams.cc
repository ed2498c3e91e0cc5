// big_streams: one session of the real engine over a long stream on a fast link, on a simulated
// clock. What it costs in time, buffers and messages, and whether all of it came where it belongs.
#include <absl/strings/str_cat.h>
#include <absl/time/time.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/units.h"
#include "engine/buffer_budget.h"
#include "godwit/session.h"
#include "tests/simulation/hollow_device.h"
#include "tests/simulation/io_plan.h"
#include "tests/simulation/libc.h"
#include "tests/simulation/network.h"
#include "tests/simulation/scheduler.h"

namespace godwit::simulation {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kSourceHost = 1;
constexpr int kTargetHost = 2;
constexpr Duration kTargetsLead = std::chrono::milliseconds(1);
// Code takes next to no time: what is measured is what the protocol and its bounds allow.
constexpr Duration kTurn{2};
constexpr Duration kTimeLimit = std::chrono::hours(100);
// Of a socket, on the way and unread: more than a lane ever has under way, so that it is the
// engine's own bounds that are seen.
constexpr size_t kSocketBytes = size_t{64} << 20;
constexpr uint64_t kAnyRate = uint64_t{1} << 62;

struct Wanted {
  uint64_t stream_bytes = kGiB;
  double gbit = 100;
  Duration round_trip = std::chrono::milliseconds(1);
  Duration skew{0};  // the slowest lane's way is up to so much longer than the fastest's
  uint32_t lanes = 4;
  uint64_t packet_bytes = kMiB;
  uint64_t arena_bytes = 128 * kMiB;
  double load_gbit = 0;  // of the target's device; 0: it takes no time
  bool crc = false;
  int processors = 16;  // of each host: those with such links have more than a few
  uint64_t seed = 1;
  double reach = 0;
  double messages_max = 0;  // of the target's a packet; 0: any number
};

uint64_t BytesASecond(double gbit) { return static_cast<uint64_t>(gbit * 1e9 / 8); }

// What the two sides have agreed to have memory for.
struct Bounds {
  explicit Bounds(const Wanted& wanted)
      : target(PlanTarget(wanted.arena_bytes, 1, wanted.lanes, wanted.packet_bytes,
                          /*receives_are_posted_ahead=*/false)),
        source(PlanSource(wanted.arena_bytes, 1, wanted.lanes, wanted.packet_bytes,
                          target.queue_packets)) {
    const uint64_t read_ahead = uint64_t{kSourceChains} * source.chain_packets;
    under_way_packets =
        std::min({uint64_t{wanted.lanes} * target.queue_packets, uint64_t{target.window_packets},
                  std::max<uint64_t>(source.buffers - read_ahead, wanted.lanes)});
  }

  TargetBudget target;
  SourceBudget source;
  uint64_t under_way_packets = 0;
};

// min(link, what may be under way a round trip): a packet's receipt comes when all of it has come.
double PredictedGbit(const Wanted& wanted, const Bounds& bounds) {
  const double packet_bits = 8.0 * static_cast<double>(wanted.packet_bytes);
  const double trip_ns = static_cast<double>(wanted.round_trip.count()) + packet_bits / wanted.gbit;
  const double window_gbit = static_cast<double>(bounds.under_way_packets) * packet_bits / trip_ns;
  return std::min(
      {wanted.gbit, window_gbit, wanted.load_gbit > 0 ? wanted.load_gbit : wanted.gbit});
}

NetworkPlan NetworkOf(const Wanted& wanted) {
  NetworkPlan network;
  network.latency_min = wanted.round_trip / 2;
  network.latency_max = network.latency_min + wanted.skew;
  network.bytes_per_second_min = network.bytes_per_second_max = kAnyRate;
  network.link_bytes_per_second = BytesASecond(wanted.gbit);
  network.buffer_bytes = network.segment_bytes_max = kSocketBytes;
  network.hollow = true;
  return network;
}

struct Run {
  explicit Run(const Wanted& wanted)
      : scheduler(wanted.seed, kTimeLimit, kTurn),
        network(scheduler, NetworkOf(wanted)),
        source_device("source", wanted.stream_bytes, 0),
        target_device("target", wanted.stream_bytes, BytesASecond(wanted.load_gbit)) {}

  Scheduler scheduler;
  Network network;
  HollowDevice source_device;
  HollowDevice target_device;
  SessionObserver nobody;
  std::unique_ptr<SourceSession> source;
  std::unique_ptr<TargetSession> target;
  SessionReport source_report;
  SessionReport target_report;
  SessionStatistics target_statistics;
};

SourceOptions SourceOptionsOf(const Wanted& wanted) {
  SourceOptions options;
  options.to = "127.0.0.1:7471";
  options.transport = TransportKind::kTcp;
  options.trust.insecure = true;  // nobody else is there
  options.lanes = wanted.lanes;
  options.packet_bytes = wanted.packet_bytes;
  options.arena_bytes = wanted.arena_bytes;
  options.crc = wanted.crc;
  return options;
}

TargetOptions TargetOptionsOf(const Wanted& wanted) {
  TargetOptions options;
  options.listen = "0.0.0.0:7471";
  options.transport = TransportKind::kTcp;
  options.trust.insecure = true;
  options.arena_bytes = wanted.arena_bytes;
  options.crc = wanted.crc;
  return options;
}

// What it says is wrong with how the fibers ended; empty: nothing.
std::string Move(const Wanted& wanted, Run& run) {
  UseIoPlan({Duration(1), /*whole=*/true, /*watch_arenas=*/true});
  UseNetwork(&run.network, wanted.processors);
  run.scheduler.SetNextEvent([&] { return run.network.NextArrival(); });
  run.scheduler.Spawn(kTargetHost, "the target", [&] {
    run.target = std::make_unique<TargetSession>(
        TargetOptionsOf(wanted), std::vector<Device*>{&run.target_device}, run.nobody);
    run.target_report = run.target->Run();
    run.target_statistics = run.target->statistics();
    run.target.reset();
  });
  run.scheduler.Spawn(kSourceHost, "the source", [&] {
    run.scheduler.Wait(
        "time to pass", [] { return false; }, run.scheduler.now() + kTargetsLead);
    run.source = std::make_unique<SourceSession>(
        SourceOptionsOf(wanted), std::vector<Device*>{&run.source_device}, run.nobody);
    run.source_report = run.source->Run();
    run.source.reset();
  });
  std::string wrong = run.scheduler.Run();
  UseNetwork(nullptr);
  return wrong;
}

uint32_t MostHeld(const Run& run) {
  const auto& devices = run.target_statistics.devices;
  return devices.empty() ? 0 : devices[0].reorder_depth_high_water;
}

double Seconds(Duration duration) { return std::chrono::duration<double>(duration).count(); }

double Gigabits(const Run& run) {
  return static_cast<double>(run.target_report.bytes) * 8 / Seconds(run.target_report.stream_time) /
         1e9;
}

// What must be so whatever the stream's length is.
class Verdict {
 public:
  Verdict(const Wanted& wanted, const Bounds& bounds, const Run& run)
      : wanted_(wanted), bounds_(bounds), run_(run) {}

  std::vector<std::string> Give() {
    CheckSide("source", run_.source_report);
    CheckSide("target", run_.target_report);
    Expect(run_.target_report.packets == run_.source_report.packets, "packets were lost");
    Expect(run_.target_device.stream().misplaced() == 0, "bytes came where they don't belong");
    Expect(run_.target_device.stream().position() == wanted_.stream_bytes,
           "the target's device did not get the whole stream");
    CheckCrc();
    Expect(MostHeld(run_) > 0 && MostHeld(run_) <= bounds_.target.window_packets,
           absl::StrCat("the window held ", MostHeld(run_), " packets"));
    CheckArena("source", kSourceHost, bounds_.source.buffers);
    CheckArena("target", kTargetHost, bounds_.target.buffers);
    const double gbit = Gigabits(run_);
    const double predicted = PredictedGbit(wanted_, bounds_);
    Expect(gbit <= 1.01 * predicted && gbit >= wanted_.reach * predicted,
           absl::StrCat("it came to ", gbit, " Gb/s, predicted were ", predicted));
    Expect(wanted_.load_gbit == 0 || wanted_.load_gbit >= wanted_.gbit ||
               4 * MostHeld(run_) > 3 * bounds_.target.window_packets,
           absl::StrCat("the window held ", MostHeld(run_), " packets before a slow device"));
    const double messages = static_cast<double>(run_.network.control_messages(1)) /
                            static_cast<double>(run_.source_report.packets);
    Expect(wanted_.messages_max == 0 || messages <= wanted_.messages_max,
           absl::StrCat("the target sent ", messages, " messages a packet"));
    return std::move(wrong_);
  }

 private:
  void Expect(bool fact, std::string otherwise) {
    if (!fact) wrong_.push_back(std::move(otherwise));
  }
  void CheckSide(const char* side, const SessionReport& report) {
    Expect(report.status.ok() && report.outcome == SessionOutcome::kDone,
           absl::StrCat("the ", side, " is not done: ", report.status.ToString()));
    Expect(report.bytes == wanted_.stream_bytes,
           absl::StrCat("the ", side, " reports ", report.bytes, " bytes"));
    const uint64_t data_packets_min =
        (wanted_.stream_bytes + wanted_.packet_bytes - 1) / wanted_.packet_bytes;
    Expect(report.packets > data_packets_min,
           absl::StrCat("the ", side, " reports ", report.packets, " packets"));
    uint64_t lane_packets = 0;
    uint64_t sent_again = 0;
    for (const LaneReport& lane : report.lanes) {
      lane_packets += lane.packets;
      sent_again += lane.sent_again + lane.duplicates;
    }
    Expect(lane_packets == report.packets && sent_again == 0,
           absl::StrCat("the ", side, "'s lanes carried ", lane_packets, " packets, ", sent_again,
                        " of them again"));
  }
  void CheckCrc() {
    if (run_.source_report.devices.empty() || run_.target_report.devices.empty()) return;
    const DeviceReport& sent = run_.source_report.devices[0];
    const DeviceReport& loaded = run_.target_report.devices[0];
    Expect(loaded.content_verified, "the target's device is not content");
    Expect(sent.sent_crc32c == loaded.loaded_crc32c && (sent.sent_crc32c != 0) == wanted_.crc,
           "the digests of the stream differ, or are not there");
  }
  void CheckArena(const char* side, int host, size_t planned) {
    const ArenaUse use = ArenaUseOf(host);
    Expect(use.buffers == planned && use.most_used > 0 && use.most_used <= planned,
           absl::StrCat("the ", side, "'s arena has ", use.buffers, " buffers, planned were ",
                        planned));
  }

  const Wanted& wanted_;
  const Bounds& bounds_;
  const Run& run_;
  std::vector<std::string> wrong_;
};

// Of both sides and the simulation.
uint64_t PeakBytes() {
  rusage usage{};
  GODWIT_CHECK(::getrusage(RUSAGE_SELF, &usage) == 0);
  return static_cast<uint64_t>(usage.ru_maxrss) << 10;
}

Json Tell(const Wanted& wanted, const Bounds& bounds, const Run& run) {
  const double gib = static_cast<double>(wanted.stream_bytes) / static_cast<double>(kGiB);
  const double gbit = Gigabits(run);
  const ArenaUse source = ArenaUseOf(kSourceHost);
  const ArenaUse target = ArenaUseOf(kTargetHost);
  uint64_t out_of_order = 0;
  for (const DeviceReport& device : run.target_report.devices) {
    out_of_order += device.out_of_order_packets;
  }
  return {
      {"stream_bytes", wanted.stream_bytes},
      {"gbit", wanted.gbit},
      {"round_trip_ms", Seconds(wanted.round_trip) * 1e3},
      {"skew_ms", Seconds(wanted.skew) * 1e3},
      {"lanes", wanted.lanes},
      {"packet_bytes", wanted.packet_bytes},
      {"arena_bytes", wanted.arena_bytes},
      {"load_gbit", wanted.load_gbit},
      {"crc", wanted.crc},
      {"packets", run.target_report.packets},
      {"stream_seconds", Seconds(run.target_report.stream_time)},
      {"link_seconds", static_cast<double>(wanted.stream_bytes) * 8 / wanted.gbit / 1e9},
      {"measured_gbit", gbit},
      {"predicted_gbit", PredictedGbit(wanted, bounds)},
      {"of_link", gbit / wanted.gbit},
      {"downtime_seconds", Seconds(run.source_report.downtime)},
      {"under_way_packets_max", bounds.under_way_packets},
      {"queue_packets", bounds.target.queue_packets},
      {"window_packets", bounds.target.window_packets},
      {"window_held_most", MostHeld(run)},
      {"out_of_order_packets", out_of_order},
      {"source_buffers", source.buffers},
      {"source_buffers_most", source.most_used},
      {"target_buffers", target.buffers},
      {"target_buffers_most", target.most_used},
      {"to_source_messages_a_gib", static_cast<double>(run.network.control_messages(1)) / gib},
      {"to_source_bytes_a_gib", static_cast<double>(run.network.control_bytes(1)) / gib},
      {"to_target_messages", run.network.control_messages(0)},
      {"turns", run.scheduler.turns()},
      {"peak_memory_bytes", PeakBytes()},
  };
}

void Print(const Json& told) {
  for (const auto& [name, value] : told.items()) {
    std::printf("%-26s %s\n", name.c_str(), value.dump().c_str());
  }
}

// "16GiB" to a number of bytes, in place.
std::string ToBytes(std::string& text) {
  const absl::StatusOr<uint64_t> bytes = ParseBytes(text);
  if (!bytes.ok() || *bytes == 0) return absl::StrCat("not a size like 16GiB: ", text);
  text = absl::StrCat(*bytes);
  return {};
}

// "0.1ms" to a number of nanoseconds, in place.
std::string ToNanoseconds(std::string& text) {
  absl::Duration duration;
  if (!absl::ParseDuration(text, &duration) || duration < absl::ZeroDuration()) {
    return absl::StrCat("not a duration like 1ms: ", text);
  }
  text = absl::StrCat(absl::ToInt64Nanoseconds(duration));
  return {};
}

int RunOne(const Wanted& wanted, bool json) {
  const auto began = std::chrono::steady_clock::now();
  const Bounds bounds(wanted);
  Run run(wanted);
  const std::string stuck = Move(wanted, run);
  if (!stuck.empty()) {
    std::fprintf(stderr, "big_streams: %s\n", stuck.c_str());
    ::_exit(1);  // its fibers are still on their stacks
  }
  Json told = Tell(wanted, bounds, run);
  told["real_seconds"] = Seconds(std::chrono::steady_clock::now() - began);
  json ? (void)std::printf("%s\n", told.dump().c_str()) : Print(told);
  const std::vector<std::string> wrong = Verdict(wanted, bounds, run).Give();
  for (const std::string& what : wrong) std::fprintf(stderr, "big_streams: %s\n", what.c_str());
  return wrong.empty() ? 0 : 1;
}

int Main(int argc, char** argv) {
  Wanted wanted;
  int64_t round_trip_ns = wanted.round_trip.count();
  int64_t skew_ns = wanted.skew.count();
  bool json = false;
  const CLI::Validator bytes(&ToBytes, "BYTES");
  const CLI::Validator nanoseconds(&ToNanoseconds, "DURATION");
  CLI::App app(
      "One session over a long stream, on a simulated link and clock: docs/simulation.md.");
  app.add_option("--stream", wanted.stream_bytes, "its length [1GiB]")->transform(bytes);
  app.add_option("--gbit", wanted.gbit, "the link's rate, Gb/s")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--round-trip", round_trip_ns, "of the link [1ms]")->transform(nanoseconds);
  app.add_option("--skew", skew_ns, "a lane's way may be so much longer than another's [0]")
      ->transform(nanoseconds);
  app.add_option("--lanes", wanted.lanes, "how many")
      ->capture_default_str()
      ->check(CLI::Range(1, 64));
  app.add_option("--packet-bytes", wanted.packet_bytes, "payload of a packet [1MiB]")
      ->transform(bytes);
  app.add_option("--arena", wanted.arena_bytes, "of each side [128MiB]")->transform(bytes);
  app.add_option("--load-gbit", wanted.load_gbit, "of the target's device, Gb/s; 0: all at once")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--crc", wanted.crc, "with CRCs of what is in the buffers");
  app.add_option("--processors", wanted.processors, "of each host")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  app.add_option("--seed", wanted.seed, "which order threads run in")->capture_default_str();
  app.add_option("--reach", wanted.reach, "fail under this part of the predicted rate")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--messages-max", wanted.messages_max,
                 "fail over so many messages a packet from target to source; 0: never")
      ->capture_default_str();
  app.add_flag("--json", json, "one line of JSON");
  CLI11_PARSE(app, argc, argv);
  wanted.round_trip = Duration(round_trip_ns);
  wanted.skew = Duration(skew_ns);
  GODWIT_CHECK(::signal(SIGPIPE, SIG_IGN) != SIG_ERR);  // see CheckBrokenPipe() in libc.cc
  return RunOne(wanted, json);
}

}  // namespace
}  // namespace godwit::simulation

int main(int argc, char** argv) {
  // Nothing of ours throws, but memory can run out, and libraries have bugs.
  try {
    return godwit::simulation::Main(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "big_streams: unexpected: %s\n", error.what());
    return 1;
  }
}
