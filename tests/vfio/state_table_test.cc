// Goal: for all 8 x 8 pairs of states and all 4 kinds of device, the walk is the one that the
// kernel's interface prescribes.
//
// The oracle is text typed from the interface's description, not code: the full device's next
// steps as a table, the lesser devices' whole walks as lists.
#include "vfio/state_table.h"

#include <absl/strings/str_join.h>
#include <absl/strings/str_split.h>

#include <map>
#include <string>

namespace godwit {
namespace {

constexpr MigrationFlags kPlain = {.p2p = false, .pre_copy = false};
constexpr MigrationFlags kP2p = {.p2p = true, .pre_copy = false};
constexpr MigrationFlags kPreCopy = {.p2p = false, .pre_copy = true};
constexpr MigrationFlags kFull = {.p2p = true, .pre_copy = true};
constexpr MigrationFlags kAllFlags[] = {kPlain, kP2p, kPreCopy, kFull};

constexpr const char* kShort[kDeviceStateCount] = {"ERR", "STOP", "RUN", "S_C",
                                                   "RES", "RP2P", "PC",  "PCP2P"};

std::string Short(DeviceState state) { return kShort[static_cast<size_t>(state)]; }

// "STOP RP2P RUN": the states entered; "-" if none, "error" if there is no way.
std::string WalkText(MigrationFlags flags, DeviceState now, DeviceState wanted) {
  const auto path = Walk(flags, now, wanted);
  if (!path.ok()) {
    EXPECT_EQ(path.status().code(), absl::StatusCode::kFailedPrecondition);
    return "error";
  }
  if (path->empty()) return "-";
  return absl::StrJoin(*path, " ",
                       [](std::string* out, DeviceState state) { out->append(Short(state)); });
}

template <typename Visit>
void ForAllPairs(Visit visit) {
  for (uint32_t now = 0; now < kDeviceStateCount; ++now) {
    for (uint32_t wanted = 0; wanted < kDeviceStateCount; ++wanted) {
      SCOPED_TRACE(absl::StrCat(kShort[now], " to ", kShort[wanted]));
      visit(static_cast<DeviceState>(now), static_cast<DeviceState>(wanted));
    }
  }
}

// "row: entry entry …" lines under a line of column names; "." stands for "error".
std::map<std::pair<std::string, std::string>, std::string> ParseGrid(const char* text) {
  std::map<std::pair<std::string, std::string>, std::string> grid;
  std::vector<std::string> columns;
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipWhitespace())) {
    std::vector<std::string> cells = absl::StrSplit(line, ' ', absl::SkipWhitespace());
    if (columns.empty()) {
      columns = cells;
      continue;
    }
    for (size_t i = 1; i < cells.size(); ++i) {
      grid[{cells[0], columns[i - 1]}] = cells[i] == "." ? "error" : cells[i];
    }
  }
  return grid;
}

TEST(StateTableTest, NextStepsOfAFullDeviceAreTheKernels) {
  const auto grid = ParseGrid(R"(
             STOP   RUN    S_C    RES    RP2P   PC     PCP2P
      STOP   -      RP2P   S_C    RES    RP2P   RP2P   RP2P
      RUN    RP2P   -      RP2P   RP2P   RP2P   PC     RP2P
      S_C    STOP   STOP   -      STOP   STOP   .      .
      RES    STOP   STOP   STOP   -      STOP   STOP   STOP
      RP2P   STOP   RUN    STOP   STOP   -      RUN    PCP2P
      PC     RUN    RUN    PCP2P  RUN    RUN    -      PCP2P
      PCP2P  RP2P   RP2P   S_C    RP2P   RP2P   PC     -
  )");
  ASSERT_EQ(grid.size(), 49u);
  ForAllPairs([&](DeviceState now, DeviceState wanted) {
    const auto cell = grid.find({Short(now), Short(wanted)});
    const std::string expected = cell == grid.end() ? "error" : cell->second;  // ERR: no cell
    const auto next = NextStep(kFull, now, wanted);
    if (!next.ok()) {
      EXPECT_EQ(expected, "error");
      EXPECT_EQ(next.status().code(), absl::StatusCode::kFailedPrecondition);
    } else {
      EXPECT_EQ(*next == now ? "-" : Short(*next), expected);
    }
  });
}

// Every pair that is not listed is an error.
struct Walks {
  MigrationFlags flags;
  const char* text;  // "from to: states entered", '/' between entries
};

TEST(StateTableTest, WalksOfEachKindOfDeviceAreTheExpectedOnes) {
  const Walks kinds[] = {{kPlain, R"(
        STOP STOP: - / STOP RUN: RUN / STOP S_C: S_C / STOP RES: RES
        RUN STOP: STOP / RUN RUN: - / RUN S_C: STOP S_C / RUN RES: STOP RES
        S_C STOP: STOP / S_C RUN: STOP RUN / S_C S_C: - / S_C RES: STOP RES
        RES STOP: STOP / RES RUN: STOP RUN / RES S_C: STOP S_C / RES RES: -)"},
                         {kP2p, R"(
        STOP STOP: - / STOP RUN: RP2P RUN / STOP S_C: S_C / STOP RES: RES / STOP RP2P: RP2P
        RUN STOP: RP2P STOP / RUN RUN: - / RUN S_C: RP2P STOP S_C / RUN RES: RP2P STOP RES
        RUN RP2P: RP2P
        S_C STOP: STOP / S_C RUN: STOP RP2P RUN / S_C S_C: - / S_C RES: STOP RES
        S_C RP2P: STOP RP2P
        RES STOP: STOP / RES RUN: STOP RP2P RUN / RES S_C: STOP S_C / RES RES: -
        RES RP2P: STOP RP2P
        RP2P STOP: STOP / RP2P RUN: RUN / RP2P S_C: STOP S_C / RP2P RES: STOP RES
        RP2P RP2P: -)"},
                         {kPreCopy, R"(
        STOP STOP: - / STOP RUN: RUN / STOP S_C: S_C / STOP RES: RES / STOP PC: RUN PC
        RUN STOP: STOP / RUN RUN: - / RUN S_C: STOP S_C / RUN RES: STOP RES / RUN PC: PC
        S_C STOP: STOP / S_C RUN: STOP RUN / S_C S_C: - / S_C RES: STOP RES
        RES STOP: STOP / RES RUN: STOP RUN / RES S_C: STOP S_C / RES RES: - / RES PC: STOP RUN PC
        PC STOP: RUN STOP / PC RUN: RUN / PC S_C: S_C / PC RES: RUN STOP RES / PC PC: -)"},
                         {kFull, R"(
        STOP STOP: - / STOP RUN: RP2P RUN / STOP S_C: S_C / STOP RES: RES / STOP RP2P: RP2P
        STOP PC: RP2P RUN PC / STOP PCP2P: RP2P PCP2P
        RUN STOP: RP2P STOP / RUN RUN: - / RUN S_C: RP2P STOP S_C / RUN RES: RP2P STOP RES
        RUN RP2P: RP2P / RUN PC: PC / RUN PCP2P: RP2P PCP2P
        S_C STOP: STOP / S_C RUN: STOP RP2P RUN / S_C S_C: - / S_C RES: STOP RES
        S_C RP2P: STOP RP2P
        RES STOP: STOP / RES RUN: STOP RP2P RUN / RES S_C: STOP S_C / RES RES: -
        RES RP2P: STOP RP2P / RES PC: STOP RP2P RUN PC / RES PCP2P: STOP RP2P PCP2P
        RP2P STOP: STOP / RP2P RUN: RUN / RP2P S_C: STOP S_C / RP2P RES: STOP RES
        RP2P RP2P: - / RP2P PC: RUN PC / RP2P PCP2P: PCP2P
        PC STOP: RUN RP2P STOP / PC RUN: RUN / PC S_C: PCP2P S_C / PC RES: RUN RP2P STOP RES
        PC RP2P: RUN RP2P / PC PC: - / PC PCP2P: PCP2P
        PCP2P STOP: RP2P STOP / PCP2P RUN: RP2P RUN / PCP2P S_C: S_C / PCP2P RES: RP2P STOP RES
        PCP2P RP2P: RP2P / PCP2P PC: PC / PCP2P PCP2P: -)"}};
  for (const Walks& kind : kinds) {
    SCOPED_TRACE(MigrationFlagsName(kind.flags));
    std::map<std::string, std::string> expected;
    for (absl::string_view entry :
         absl::StrSplit(kind.text, absl::ByAnyChar("/\n"), absl::SkipWhitespace())) {
      const std::vector<std::string> parts = absl::StrSplit(entry, ':');
      ASSERT_EQ(parts.size(), 2u) << entry;
      expected[std::string(absl::StripAsciiWhitespace(parts[0]))] =
          std::string(absl::StripAsciiWhitespace(parts[1]));
    }
    ForAllPairs([&](DeviceState now, DeviceState wanted) {
      const auto entry = expected.find(absl::StrCat(Short(now), " ", Short(wanted)));
      EXPECT_EQ(WalkText(kind.flags, now, wanted),
                entry == expected.end() ? "error" : entry->second);
    });
  }
}

TEST(StateTableTest, NoWalkOpensASessionOnItsWay) {
  for (const MigrationFlags flags : kAllFlags) {
    ForAllPairs([&](DeviceState now, DeviceState wanted) {
      const auto path = Walk(flags, now, wanted);
      if (!path.ok() || path->empty()) return;
      EXPECT_LE(path->size(), kWalkStepsMax);
      EXPECT_EQ(path->back(), wanted);
      for (size_t i = 0; i + 1 < path->size(); ++i) {
        EXPECT_TRUE(HasState(flags, (*path)[i]));
        EXPECT_NE((*path)[i], DeviceState::kResuming);
        // PRE_COPY to STOP_COPY passes PRE_COPY_P2P, all in one session.
        EXPECT_TRUE(!IsSaving((*path)[i]) || IsSaving(now));
      }
    });
  }
}

TEST(StateTableTest, ANumberThatIsNoStateIsRefused) {
  for (const uint32_t number : {8u, 255u, 0xffffffffu}) {
    const auto bad = static_cast<DeviceState>(number);
    EXPECT_FALSE(NextStep(kFull, bad, DeviceState::kStop).ok());
    EXPECT_FALSE(NextStep(kFull, DeviceState::kStop, bad).ok());
    EXPECT_FALSE(NextStep(kFull, bad, bad).ok());
    EXPECT_EQ(DeviceStateName(bad), "?");
  }
}

TEST(StateTableTest, TheErrorNamesBothStatesAndTheDevicesFlags) {
  const auto next = NextStep(kP2p, DeviceState::kRunning, DeviceState::kPreCopy);
  EXPECT_EQ(next.status().message(),
            "no way from RUNNING to PRE_COPY on a device that has STOP_COPY P2P");
}

}  // namespace
}  // namespace godwit
