// Goal: what is saved is docs/capture-format.md, byte for byte, and loads into the same state; a
// capture that was cut off or changed anywhere is refused by name and offset, with the devices put
// back; and a file that could not be finished is not there.
#include "godwit/capture.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "engine/capture_format.h"
#include "engine/capture_inspect.h"
#include "engine/capture_writer.h"
#include "tests/engine/wire_image.h"
#include "tests/vfio/stream_images.h"
#include "vfio/device_spec.h"

namespace godwit {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr size_t kArenaBytes = 1 << 20;

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}
void WriteFile(const std::string& path, absl::string_view bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << bytes;
  ASSERT_TRUE(file.good()) << path;
}

// The document's example.
std::string DocumentedBytes() {
  std::ifstream page(GODWIT_DOCS_DIR "/capture-format.md");
  EXPECT_TRUE(page.good());
  std::string bytes;
  bool in_section = false;
  bool in_block = false;
  for (std::string line; std::getline(page, line);) {
    if (line == "## An example") in_section = true;
    if (!in_section) continue;
    if (line == "```") {
      if (in_block) break;
      in_block = true;
      continue;
    }
    if (!in_block) continue;
    std::istringstream row(line);
    std::string offset;
    row >> offset;
    EXPECT_EQ(std::stoul(offset, nullptr, 16), bytes.size());
    for (std::string byte; row >> byte;) {
      bytes.push_back(static_cast<char>(std::stoul(byte, nullptr, 16)));
    }
  }
  return bytes;
}

// A capture made by hand, any part of it open to lies.
struct Image {
  std::string kinds = "file";
  uint32_t packet_bytes = 64;
  size_t devices = 1;
  std::vector<wire::Frame> frames;
  std::optional<uint64_t> records;
  std::string after;

  std::string Bytes() const {
    std::string rows;
    for (size_t i = 0; i < devices; ++i) {
      rows += wire::BigEndian(1, 1) + wire::BigEndian(kinds.size(), 1) + wire::BigEndian(1, 2) +
              wire::BigEndian(0, 8) + kinds + "d";
    }
    std::string bytes = "GODWITCP" + wire::BigEndian(1, 2) + wire::BigEndian(devices, 2) +
                        wire::BigEndian(packet_bytes, 4) + wire::BigEndian(rows.size(), 4) +
                        std::string(12, '\0') + rows;
    bytes += wire::BigEndian(wire::Crc32c(bytes), 4);
    uint64_t sequence = 0;
    for (wire::Frame frame : frames) {
      frame.lane_sequence += sequence++;
      bytes += wire::WithLength(wire::Encode(frame));
    }
    std::string trailer = wire::BigEndian(0, 4) + "GODWITCE" +
                          wire::BigEndian(records.value_or(sequence), 8) +
                          wire::BigEndian(bytes.size(), 8);
    trailer += wire::BigEndian(wire::Crc32c(trailer), 4);
    return bytes + trailer + after;
  }
};

class Problems final : public InspectSink {
 public:
  void OnPacket(const InspectedPacket& packet, absl::Span<const std::byte> /*payload*/) override {
    ++packets;
    if (!packet.problem.empty()) problems.push_back(packet.problem);
  }
  size_t packets = 0;
  std::vector<std::string> problems;
};

class CaptureTest : public testing::Test {
 protected:
  void SetUp() override {
    // Memory before disk: there are thousands of files.
    std::string name = "/dev/shm/godwit-capture.XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) {
      name = std::filesystem::temp_directory_path() / "godwit-capture.XXXXXX";
      ASSERT_NE(::mkdtemp(name.data()), nullptr);
    }
    folder_ = name;
    ASSERT_EQ(::chdir(folder_.c_str()), 0);
  }
  void TearDown() override {
    ASSERT_EQ(::chdir("/"), 0);
    std::filesystem::remove_all(folder_);
  }

  class Devices {
   public:
    Devices(const std::vector<std::string>& specs, DeviceRole role) {
      for (const std::string& spec : specs) {
        owned_.push_back(OpenDevice(spec, role).value());
        borrowed.push_back(owned_.back().get());
      }
    }
    std::vector<DeviceState> States() const {
      std::vector<DeviceState> states;
      for (Device* device : borrowed) states.push_back(device->State().value());
      return states;
    }
    std::vector<Device*> borrowed;

   private:
    std::vector<std::unique_ptr<Device>> owned_;
  };

  SessionReport Save(const Devices& devices, SaveOptions options = {}) {
    if (options.out.empty()) options.out = "c";
    return SaveSession(options, devices.borrowed, observer_).Run();
  }
  SessionReport Load(const Devices& devices, StreamCheckFactory check = {}) {
    LoadOptions options;
    options.in = "c";
    options.arena_bytes = kArenaBytes;
    options.stream_check = std::move(check);
    return LoadSession(options, devices.borrowed, observer_).Run();
  }
  // Loads `capture` into file:B, which must not work; B must be gone then. The error's text.
  std::string LoadRefuses(absl::string_view capture) {
    WriteFile("c", capture);
    const Devices target({"file:B"}, DeviceRole::kTarget);
    const SessionReport report = Load(target);
    EXPECT_FALSE(report.status.ok());
    EXPECT_EQ(report.outcome, SessionOutcome::kRolledBack);
    EXPECT_THAT(target.States(), ElementsAre(DeviceState::kRunning));
    EXPECT_FALSE(std::filesystem::exists("B"));
    return std::string(report.status.message());
  }
  // Whether going through it finds anything wrong.
  bool InspectionFindsFault(absl::string_view capture) {
    WriteFile("c", capture);
    const auto reader = CaptureReader::Open("c");
    if (!reader.ok()) return true;
    Problems problems;
    std::vector<InspectedDevice> devices;
    if (!InspectCapture(**reader, problems, devices).ok()) return true;
    for (const InspectedDevice& device : devices) {
      if (!device.complete) return true;
    }
    return !problems.problems.empty();
  }
  // A small capture of one file.
  std::string SmallCapture() {
    WriteFile("A", "123456789");
    SaveOptions options;
    options.packet_bytes = 4;
    EXPECT_TRUE(Save(Devices({"file:A"}, DeviceRole::kSource), options).status.ok());
    return ReadFile("c");
  }
  std::vector<std::string> Files() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
      names.push_back(entry.path().filename());
    }
    std::sort(names.begin(), names.end());
    return names;
  }

  std::filesystem::path folder_;
  SessionObserver observer_;
};

TEST_F(CaptureTest, WritesTheDocumentsExample) {
  WriteFile("A", "123456789");
  const SessionReport report = Save(Devices({"file:A"}, DeviceRole::kSource));
  ASSERT_TRUE(report.status.ok()) << report.status;
  EXPECT_EQ(ReadFile("c"), DocumentedBytes());
  struct stat info = {};
  ASSERT_EQ(::stat("c", &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
}

TEST_F(CaptureTest, WhatIsSavedIsLoaded) {
  for (const size_t packet_bytes : {size_t{1}, size_t{7}, size_t{4096}, size_t{1} << 20}) {
    const std::string size = packet_bytes < 4096 ? "2000B" : "3000000B";
    const std::vector<std::string> specs = {absl::StrCat("soft:seed=1,size=", size),
                                            absl::StrCat("soft:seed=2,size=", size)};
    const Devices source(specs, DeviceRole::kSource);
    SaveOptions options;
    options.packet_bytes = packet_bytes;
    options.replace = true;
    const SessionReport saved = Save(source, options);
    ASSERT_TRUE(saved.status.ok()) << saved.status;
    EXPECT_EQ(saved.outcome, SessionOutcome::kDone);
    EXPECT_THAT(source.States(), ElementsAre(DeviceState::kRunning, DeviceState::kRunning));

    const Devices target(specs, DeviceRole::kTarget);
    const SessionReport loaded = Load(target);
    ASSERT_TRUE(loaded.status.ok()) << loaded.status;
    EXPECT_THAT(target.States(), ElementsAre(DeviceState::kRunning, DeviceState::kRunning));
    EXPECT_EQ(loaded.bytes, saved.bytes);
    EXPECT_EQ(loaded.packets, saved.packets);
    for (size_t i = 0; i < specs.size(); ++i) {
      EXPECT_EQ(loaded.devices[i].loaded_crc32c, saved.devices[i].sent_crc32c);
      EXPECT_TRUE(loaded.devices[i].content_verified);
    }
    EXPECT_FALSE(InspectionFindsFault(ReadFile("c")));
  }
}

TEST_F(CaptureTest, AnEmptyStreamIsAStreamToo) {
  WriteFile("A", "");
  ASSERT_TRUE(Save(Devices({"file:A"}, DeviceRole::kSource)).status.ok());
  ASSERT_TRUE(Load(Devices({"file:B"}, DeviceRole::kTarget)).status.ok());
  EXPECT_EQ(std::filesystem::file_size("B"), 0U);
}

TEST_F(CaptureTest, LeavesDevicesStoppedWhereAsked) {
  const Devices source({"soft:size=1MiB"}, DeviceRole::kSource);
  SaveOptions options;
  options.leave_stopped = true;
  ASSERT_TRUE(Save(source, options).status.ok());
  EXPECT_THAT(source.States(), ElementsAre(DeviceState::kStop));
}

TEST_F(CaptureTest, ReplacesAFileOnlyWhenTold) {
  WriteFile("A", "state");
  WriteFile("c", "precious");
  const Devices source({"file:A"}, DeviceRole::kSource);
  const SessionReport refused = Save(source);
  EXPECT_TRUE(absl::IsAlreadyExists(refused.status)) << refused.status;
  EXPECT_THAT(source.States(), ElementsAre(DeviceState::kRunning));
  EXPECT_EQ(ReadFile("c"), "precious");
  SaveOptions options;
  options.replace = true;
  EXPECT_TRUE(Save(source, options).status.ok());
  EXPECT_TRUE(absl::StartsWith(ReadFile("c"), "GODWITCP"));
  EXPECT_THAT(Files(), ElementsAre("A", "c"));
}

TEST_F(CaptureTest, AFailedSaveLeavesNoFileAndRunningDevices) {
  for (const char* const state : {"STOP_COPY", "STOP"}) {
    const Devices source({absl::StrCat("soft:size=1MiB,fail_state=", state)}, DeviceRole::kSource);
    SaveOptions options;
    options.leave_stopped = true;
    const SessionReport report = Save(source, options);
    EXPECT_FALSE(report.status.ok()) << state;
    EXPECT_EQ(report.outcome, SessionOutcome::kRolledBack);
    EXPECT_THAT(source.States(), ElementsAre(DeviceState::kRunning));
    EXPECT_THAT(Files(), IsEmpty());
  }
  const Devices source({"soft:size=1MiB"}, DeviceRole::kSource);
  SaveOptions options;
  options.out = "no/such/folder/c";
  EXPECT_TRUE(absl::IsNotFound(Save(source, options).status));
  options.out = folder_;
  EXPECT_TRUE(absl::IsInvalidArgument(Save(source, options).status));
  options.out = "c";
  options.packet_bytes = 0;
  EXPECT_TRUE(absl::IsInvalidArgument(Save(source, options).status));
  EXPECT_THAT(Files(), IsEmpty());
}

int FailToSync(int /*fd*/) {
  errno = EIO;
  return -1;
}

TEST_F(CaptureTest, AFileWhoseNameIsNotDurableIsRemoved) {
  for (const bool replaces : {false, true}) {
    if (replaces) WriteFile("c", "precious");
    const auto writer = CaptureWriter::Create("c", replaces, FailToSync);
    ASSERT_TRUE(writer.ok()) << writer.status();
    const absl::Status committed = (*writer)->Commit();
    EXPECT_EQ(committed.code(), absl::ErrnoToStatusCode(EIO));
    EXPECT_EQ(committed.message(),
              replaces ? "c: making its name durable failed, and the file that it replaced is "
                         "gone: Input/output error"
                       : "c: making its name durable failed: Input/output error");
    EXPECT_THAT(Files(), IsEmpty());
  }
}

TEST_F(CaptureTest, AFileThatSomebodyElsePutThereIsNotRemoved) {
  const auto replace_and_fail = [](int /*fd*/) {
    std::filesystem::remove("c");
    WriteFile("c", "another's");
    return FailToSync(-1);
  };
  const auto writer = CaptureWriter::Create("c", false, replace_and_fail);
  ASSERT_TRUE(writer.ok()) << writer.status();
  EXPECT_FALSE((*writer)->Commit().ok());
  EXPECT_EQ(ReadFile("c"), "another's");
}

// While it lives its thread may not do what permissions forbid, as root may.
class ObeysPermissions {
 public:
  ObeysPermissions() {
    EXPECT_EQ(::syscall(SYS_capget, &header_, before_), 0);
    __user_cap_data_struct without[2] = {before_[0], before_[1]};
    without[0].effective &= ~(1U << CAP_DAC_OVERRIDE | 1U << CAP_DAC_READ_SEARCH);
    EXPECT_EQ(::syscall(SYS_capset, &header_, without), 0);
  }
  ~ObeysPermissions() { EXPECT_EQ(::syscall(SYS_capset, &header_, before_), 0); }
  ObeysPermissions(const ObeysPermissions&) = delete;
  ObeysPermissions& operator=(const ObeysPermissions&) = delete;

 private:
  __user_cap_header_struct header_ = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct before_[2] = {};
};

TEST_F(CaptureTest, AFolderThatCanNotBeMadeDurableIsRefusedBeforeADeviceStops) {
  const Devices source({"soft:size=1MiB"}, DeviceRole::kSource);
  std::filesystem::create_directory("folder");
  WriteFile("folder/c", "precious");
  ASSERT_EQ(::chmod("folder", 0300), 0);  // takes files; can't be opened, and so not synced
  SessionReport report;
  {
    const ObeysPermissions unprivileged;
    report = Save(source, {.out = "folder/c", .replace = true});
  }
  ASSERT_EQ(::chmod("folder", 0700), 0);
  EXPECT_TRUE(absl::IsPermissionDenied(report.status)) << report.status;
  EXPECT_THAT(std::string(report.status.message()), HasSubstr("its folder folder can't be opened"));
  EXPECT_EQ(report.packets, 0U);
  EXPECT_EQ(ReadFile("folder/c"), "precious");
  EXPECT_FALSE(std::filesystem::exists("folder/c.partial"));
}

// Resets a device as soon as all of its state has been read.
class ResetsBehindTheBack final : public SessionObserver {
 public:
  explicit ResetsBehindTheBack(Device& device) : device_(device) {}
  void OnPhase(SessionPhase phase) override {
    if (phase != SessionPhase::kHandingOver) return;
    EXPECT_TRUE(device_.Reset().ok());
  }

 private:
  Device& device_;
};

TEST_F(CaptureTest, ADeviceThatWasResetBehindTheBackIsNotSaved) {
  for (const bool leave_stopped : {false, true}) {
    const Devices source({"soft:size=1MiB,seed=1", "soft:size=1MiB,seed=2"}, DeviceRole::kSource);
    ResetsBehindTheBack observer(*source.borrowed[1]);
    const SessionReport report =
        SaveSession({.out = "c", .leave_stopped = leave_stopped}, source.borrowed, observer).Run();
    EXPECT_TRUE(absl::IsDataLoss(report.status)) << report.status;
    EXPECT_THAT(std::string(report.status.message()),
                AllOf(HasSubstr("seed=2: it is in RUNNING"), HasSubstr("out of STOP_COPY")));
    EXPECT_EQ(report.outcome, SessionOutcome::kRolledBack);
    EXPECT_EQ(report.bytes, 2U << 20);  // though all of it was read
    EXPECT_THAT(source.States(), ElementsAre(DeviceState::kRunning, DeviceState::kRunning));
    EXPECT_THAT(Files(), IsEmpty());
  }
}

TEST_F(CaptureTest, ACancelledSaveLeavesNoFile) {
  const Devices source({"soft:size=1GiB"}, DeviceRole::kSource);
  SaveSession session({.out = "c"}, source.borrowed, observer_);
  session.Cancel();
  const SessionReport report = session.Run();
  EXPECT_TRUE(absl::IsCancelled(report.status)) << report.status;
  EXPECT_THAT(source.States(), ElementsAre(DeviceState::kRunning));
  EXPECT_THAT(Files(), IsEmpty());
}

TEST_F(CaptureTest, TwoWritersDontShareAFile) {
  const auto first = CaptureWriter::Create("c", false);
  ASSERT_TRUE(first.ok());
  const auto second = CaptureWriter::Create("c", false);
  EXPECT_TRUE(absl::IsAlreadyExists(second.status())) << second.status();
  EXPECT_THAT(Files(), ElementsAre("c.partial"));
}

TEST_F(CaptureTest, WritesOverWhatAKilledWriterLeft) {
  WriteFile("c.partial", std::string(100'000, 'x'));
  WriteFile("A", "123456789");
  ASSERT_TRUE(Save(Devices({"file:A"}, DeviceRole::kSource)).status.ok());
  EXPECT_EQ(ReadFile("c"), DocumentedBytes());
}

TEST_F(CaptureTest, RefusesACaptureThatIsCutOffAnywhere) {
  const std::string capture = SmallCapture();
  for (size_t bytes = 0; bytes < capture.size(); ++bytes) {
    const std::string message = LoadRefuses(absl::string_view(capture).substr(0, bytes));
    EXPECT_THAT(message, HasSubstr("cut off")) << "cut to " << bytes;
    EXPECT_TRUE(InspectionFindsFault(absl::string_view(capture).substr(0, bytes)));
  }
}

TEST_F(CaptureTest, NamesTheRecordThatIsCutOff) {
  const std::string capture = SmallCapture();  // header 58, records of 88, 88, 85 and 100 bytes
  const auto cut = [&](size_t bytes) {
    return LoadRefuses(absl::string_view(capture).substr(0, bytes));
  };
  EXPECT_THAT(cut(20), HasSubstr("its header is cut off: the file has only 20 bytes"));
  EXPECT_THAT(cut(40), HasSubstr("its header is cut off: 40 of its 58 bytes are there"));
  EXPECT_THAT(cut(58 + 2), HasSubstr("record 0 (at byte 58): the file is cut off in its length"));
  EXPECT_THAT(cut(58 + 88 + 50),
              HasSubstr("record 1 (at byte 146): the file is cut off: 50 of its 88 bytes"));
  EXPECT_THAT(cut(58 + 88 + 88), HasSubstr("after 2 records, and without a trailer"));
  EXPECT_THAT(cut(capture.size() - 1), HasSubstr("31 of the trailer's 32 bytes"));
}

TEST_F(CaptureTest, RefusesEveryFlippedBit) {
  const std::string capture = SmallCapture();
  for (size_t bit = 0; bit < 8 * capture.size(); ++bit) {
    std::string flipped = capture;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ 1 << bit % 8);
    ASSERT_TRUE(InspectionFindsFault(flipped)) << "bit " << bit;
    // A load takes longer: one bit of each byte, in turn.
    if (bit % 8 != bit / 8 % 8) continue;
    ASSERT_THAT(LoadRefuses(flipped), HasSubstr("c: ")) << "bit " << bit;
  }
}

TEST_F(CaptureTest, RefusesWhateverWasDoneToIt) {
  constexpr int kMutations = 4000;
  constexpr uint64_t kSeed = 7471;
  SCOPED_TRACE(absl::StrCat("seed ", kSeed));
  std::mt19937_64 random(kSeed);
  const auto below = [&random](size_t limit) { return static_cast<size_t>(random() % limit); };
  const std::string capture = SmallCapture();
  for (int i = 0; i < kMutations; ++i) {
    std::string mutated = capture;
    for (size_t changes = 1 + below(3); changes > 0; --changes) {
      const size_t at = below(mutated.size());
      switch (below(4)) {
        case 0:
          mutated[at] = static_cast<char>(random());
          break;
        case 1:
          mutated.erase(at, 1 + below(100));
          if (mutated.empty()) mutated = "x";
          break;
        case 2:
          mutated.insert(at, mutated.substr(below(mutated.size()), below(200)));
          break;
        default:
          mutated.replace(at, 4, wire::BigEndian(UINT32_MAX >> below(32), 4));
          break;
      }
    }
    if (mutated == capture) continue;
    ASSERT_TRUE(InspectionFindsFault(mutated)) << "mutation " << i;
    if (i % 16 != 0) continue;  // a load takes longer
    LoadRefuses(mutated);
    ASSERT_FALSE(HasFailure()) << "mutation " << i;
  }
}

TEST_F(CaptureTest, RefusesLiesWithRightCrcs) {
  const wire::Frame first = wire::DataFrame(0, 0, "", "GOD");
  const wire::Frame second = wire::DataFrame(0, 1, "GOD", "WIT");
  const wire::Frame config = wire::ConfigFrame(0, 2, "GODWIT", "");
  Image whole;
  whole.frames = {first, second, config};
  WriteFile("c", whole.Bytes());
  ASSERT_TRUE(Load(Devices({"file:B"}, DeviceRole::kTarget)).status.ok());
  EXPECT_EQ(ReadFile("B"), "GODWIT");
  std::filesystem::remove("B");

  const auto refuses = [this](const Image& image) {
    EXPECT_TRUE(InspectionFindsFault(image.Bytes()));
    return LoadRefuses(image.Bytes());
  };
  Image image = whole;
  image.frames = {first, second};
  EXPECT_THAT(refuses(image), HasSubstr("the config packet of device 0 is missing"));
  image.frames = {second, config};
  EXPECT_THAT(refuses(image), HasSubstr("packet 1 of device 0, due is 0"));
  image.frames = {first, first, second, config};
  EXPECT_THAT(refuses(image), HasSubstr("packet 0 of device 0, due is 1"));
  image.frames = {first, second, config, wire::DataFrame(0, 3, "GODWIT", "x")};
  EXPECT_THAT(refuses(image), HasSubstr("packet 3 of device 0, due is none any more"));
  image.frames = {first, wire::DataFrame(0, 1, "NOT", "WIT"), config};
  EXPECT_THAT(refuses(image), HasSubstr("does not continue the stream"));
  image.frames = {first, wire::DataFrame(1, 0, "", "x"), second, config};
  EXPECT_THAT(refuses(image), HasSubstr("packet is for device 1, the session has 1"));
  image.frames = {first, second, config};
  image.frames[1].lane_sequence = 5;
  EXPECT_THAT(refuses(image), HasSubstr("lane sequence is 6, expected 1"));
  image.frames = {wire::DataFrame(0, 0, "", std::string(65, 'x'))};
  EXPECT_THAT(refuses(image), HasSubstr("packet 0 has 65 bytes, allowed are 1 to 64"));
  image = whole;
  image.records = 4;
  EXPECT_THAT(refuses(image), HasSubstr("it says 4 records"));
  image = whole;
  image.after = "x";
  EXPECT_THAT(refuses(image), HasSubstr("damaged"));
}

TEST_F(CaptureTest, PairsDevicesByKindAndNumber) {
  Image image;
  image.kinds = "vfio";
  EXPECT_THAT(LoadRefuses(image.Bytes()),
              AllOf(HasSubstr("kind 'file'"), HasSubstr("kind 'vfio'"), HasSubstr("pair")));
  image.devices = 2;
  EXPECT_THAT(LoadRefuses(image.Bytes()), HasSubstr("holds 2 devices and 1 are to be loaded"));
  EXPECT_THAT(LoadRefuses("GODWIT"), HasSubstr("only 6 bytes"));
  EXPECT_THAT(LoadRefuses(std::string(100, 'x')), HasSubstr("it is no capture"));
  std::string newer = image.Bytes();
  newer[9] = 2;
  EXPECT_THAT(LoadRefuses(newer), HasSubstr("capture version is 2, this side knows 1"));
}

TEST_F(CaptureTest, ADeviceThatRefusesItsStateIsReset) {
  ASSERT_TRUE(Save(Devices({"soft:size=1MiB,seed=1"}, DeviceRole::kSource)).status.ok());
  const Devices target({"soft:size=1MiB,seed=2"}, DeviceRole::kTarget);
  const SessionReport report = Load(target);
  EXPECT_THAT(std::string(report.status.message()), HasSubstr("content is wrong"));
  EXPECT_THAT(target.States(), ElementsAre(DeviceState::kRunning));
}

TEST_F(CaptureTest, ACheckStopsTheLoadWithRecordAndOffset) {
  WriteFile("A", image::Mlx5() + image::Record(5, 0, "unknown"));
  ASSERT_TRUE(Save(Devices({"file:A"}, DeviceRole::kSource)).status.ok());
  const auto check = [](size_t /*device*/) { return MakeStreamCheck("mlx5").value(); };
  const Devices target({"file:B"}, DeviceRole::kTarget);
  const SessionReport report = Load(target, check);
  EXPECT_THAT(std::string(report.status.message()),
              AllOf(HasSubstr("file:B"), HasSubstr("record 4 at byte 214: its tag 0x5")));
  EXPECT_THAT(target.States(), ElementsAre(DeviceState::kRunning));
  EXPECT_FALSE(std::filesystem::exists("B"));
  EXPECT_TRUE(Load(target).status.ok());  // nobody asked
}

}  // namespace
}  // namespace godwit
