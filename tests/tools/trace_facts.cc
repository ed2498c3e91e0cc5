// trace_facts FILE: what a trace of --trace holds, for test scripts, one fact a line.
//
//   track NAME SPANS BYTES     every track that has a name, in the order of the file
//   dropped SPANS
//   overlaps NAME SPANS        spans that begin before one ahead of them on their track has ended
//   falls NAME SPANS           spans whose index is not more than that of the one ahead of them
//
// overlaps and falls are told only where they are not 0. Exit code 1 and a line on stderr where the
// file is no trace: not JSON, a span without what the format wants, a span of a track without a
// name.

#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using nlohmann::json;

struct Track {
  std::string name;
  uint64_t spans = 0;
  uint64_t bytes = 0;
  uint64_t overlaps = 0;
  uint64_t falls = 0;
  double end_us = 0;
  int64_t index = -1;
};

void LookAtSpan(const json& event, Track& track) {
  const double begin_us = event.at("ts").get<double>();
  const double duration_us = event.at("dur").get<double>();
  if (duration_us < 0) throw std::runtime_error("a span of negative length");
  if (event.at("name").get<std::string>().empty()) throw std::runtime_error("a span of no name");
  // Doubles of a monotonic clock's microseconds keep nanoseconds for a few months.
  constexpr double kRoundingUs = 0.01;
  if (track.spans > 0 && begin_us + kRoundingUs < track.end_us) ++track.overlaps;
  track.end_us = begin_us + duration_us;
  ++track.spans;
  if (!event.contains("args")) return;
  const json& args = event.at("args");
  track.bytes += args.at("bytes").get<uint64_t>();
  const auto index = args.at("index").get<int64_t>();
  (void)args.at("device").get<uint32_t>();
  if (index <= track.index) ++track.falls;
  track.index = index;
}

void Look(const char* path) {
  std::ifstream file(path);
  const json trace = json::parse(file);
  std::map<uint64_t, Track> tracks;
  std::vector<uint64_t> order;
  bool process_named = false;
  for (const json& event : trace.at("traceEvents")) {
    const auto kind = event.at("ph").get<std::string>();
    (void)event.at("pid").get<int>();
    const auto id = event.at("tid").get<uint64_t>();
    if (kind == "X") {
      if (!tracks.contains(id)) throw std::runtime_error("a span before its track's name");
      LookAtSpan(event, tracks[id]);
    } else if (kind != "M") {
      throw std::runtime_error("an event of kind " + kind);
    } else if (event.at("name") == "process_name") {
      process_named = true;
    } else if (event.at("name") == "thread_name") {
      if (!tracks.try_emplace(id).second) throw std::runtime_error("a track of two names");
      tracks[id].name = event.at("args").at("name").get<std::string>();
      order.push_back(id);
    }
  }
  if (!process_named) throw std::runtime_error("a process of no name");
  for (const uint64_t id : order) {
    const Track& track = tracks[id];
    std::cout << "track " << track.name << " " << track.spans << " " << track.bytes << "\n";
    if (track.overlaps > 0) std::cout << "overlaps " << track.name << " " << track.overlaps << "\n";
    if (track.falls > 0) std::cout << "falls " << track.name << " " << track.falls << "\n";
  }
  std::cout << "dropped " << trace.at("otherData").at("dropped_spans") << "\n";
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: trace_facts FILE\n", stderr);
    return 2;
  }
  try {
    Look(argv[1]);
  } catch (const std::exception& error) {
    std::cerr << argv[1] << ": " << error.what() << "\n";
    return 1;
  }
  return 0;
}
