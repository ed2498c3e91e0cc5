// Goal: of all ways out of this host the best is taken, and when there is none the user reads why
// and what to do.
#include "transport/verbs/device_selection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "transport/verbs/memlock.h"
#include "transport/verbs/verbs_endpoint.h"

namespace godwit {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

RdmaGid Gid(uint32_t index, RdmaGidType type, std::initializer_list<uint8_t> first,
            std::initializer_list<uint8_t> last) {
  RdmaGid gid{.index = index, .type = type, .bytes = {}};
  std::copy(first.begin(), first.end(), gid.bytes.begin());
  std::copy(last.begin(), last.end(), gid.bytes.end() - static_cast<ptrdiff_t>(last.size()));
  return gid;
}
RdmaGid V4(uint32_t index, RdmaGidType type = RdmaGidType::kRoceV2) {
  return Gid(index, type, {}, {0xff, 0xff, 10, 0, 0, 1});
}
RdmaGid LinkLocal(uint32_t index, RdmaGidType type = RdmaGidType::kRoceV2) {
  return Gid(index, type, {0xfe, 0x80}, {1});
}
RdmaGid Global(uint32_t index) {
  return Gid(index, RdmaGidType::kRoceV2, {0x20, 0x01, 0x0d, 0xb8}, {7});
}

RdmaPort Port(uint8_t number, bool active, std::vector<RdmaGid> gids) {
  RdmaPort port;
  port.number = number;
  port.active = active;
  port.state = active ? "ACTIVE" : "DOWN";
  port.gids = std::move(gids);
  return port;
}

RdmaDeviceInfo Device(std::string name, std::vector<RdmaPort> ports) {
  RdmaDeviceInfo device;
  device.name = std::move(name);
  device.ports = std::move(ports);
  return device;
}

std::vector<std::string> Paths(const std::vector<RdmaDeviceInfo>& devices,
                               const VerbsDeviceOptions& options = {}) {
  std::vector<std::string> texts;
  const auto paths = RankRdmaPaths(devices, options);
  if (!paths.ok()) return {paths.status().ToString()};
  for (const RdmaPath& path : *paths) {
    texts.push_back(absl::StrCat(path.device_name, "/", path.port.number, "/", path.gid.index));
  }
  return texts;
}

TEST(DeviceSelectionTest, RanksRoceV2AddressesByReachAndRoceV1Last) {
  EXPECT_THAT(Paths({Device("a", {Port(1, true,
                                       {LinkLocal(0, RdmaGidType::kRoceV1), LinkLocal(1),
                                        V4(2, RdmaGidType::kRoceV1), V4(3), Global(4), V4(5)})})}),
              ElementsAre("a/1/3", "a/1/5", "a/1/4", "a/1/1", "a/1/0", "a/1/2"));
}

TEST(DeviceSelectionTest, PassesOverPortsThatAreDown) {
  EXPECT_THAT(Paths({Device("a", {Port(1, false, {V4(0)}), Port(2, true, {V4(0)})}),
                     Device("b", {Port(1, true, {V4(9)})})}),
              ElementsAre("a/2/0", "b/1/9"));
}

TEST(DeviceSelectionTest, TakesExactlyWhatWasAskedFor) {
  const std::vector<RdmaDeviceInfo> devices = {
      Device("a", {Port(1, true, {V4(0)})}),
      Device("b", {Port(1, true, {V4(0), V4(1)}), Port(2, true, {V4(0), V4(1)})})};
  EXPECT_THAT(Paths(devices, {.device_name = "b", .port = 2, .gid_index = 1}),
              ElementsAre("b/2/1"));
  EXPECT_THAT(Paths(devices, {.device_name = "b", .port = {}, .gid_index = 0}),
              ElementsAre("b/1/0", "b/2/0"));
}

TEST(DeviceSelectionTest, SaysHowToMakeADeviceWhereThereIsNone) {
  EXPECT_THAT(Paths({}),
              ElementsAre(AllOf(HasSubstr("NOT_FOUND"), HasSubstr("no RDMA device on this host"),
                                HasSubstr("rdma link add"))));
}

TEST(DeviceSelectionTest, NamesTheDevicesThereAreWhenTheNamedOneIsNot) {
  EXPECT_THAT(Paths({Device("a", {}), Device("b", {})}, {.device_name = "c"}),
              ElementsAre(AllOf(HasSubstr("NOT_FOUND"), HasSubstr("named c"),
                                HasSubstr("there are: a, b"))));
}

TEST(DeviceSelectionTest, SaysWhichPortIsDown) {
  EXPECT_THAT(Paths({Device("a", {Port(1, false, {V4(0)})})}),
              ElementsAre(AllOf(HasSubstr("FAILED_PRECONDITION"), HasSubstr("a/1 is DOWN"))));
}

TEST(DeviceSelectionTest, SaysThatAPortOrGidIsNotThere) {
  const std::vector<RdmaDeviceInfo> devices = {Device("a", {Port(1, true, {V4(4)})})};
  EXPECT_THAT(Paths(devices, {.port = 2}),
              ElementsAre(AllOf(HasSubstr("NOT_FOUND"), HasSubstr("has no port 2"))));
  EXPECT_THAT(
      Paths(devices, {.gid_index = 7}),
      ElementsAre(AllOf(HasSubstr("NOT_FOUND"), HasSubstr("index 7"), HasSubstr("4 (10.0.0.1)"))));
}

TEST(DeviceSelectionTest, SaysThatAPortHasNoAddress) {
  EXPECT_THAT(Paths({Device("a", {Port(1, true, {})})}),
              ElementsAre(AllOf(HasSubstr("FAILED_PRECONDITION"), HasSubstr("no usable GID"))));
}

TEST(DeviceSelectionTest, ADeviceThatCannotBeOpenedIsPassedOverButNotKeptQuiet) {
  RdmaDeviceInfo broken = Device("a", {});
  broken.error = "can't open the device: Permission denied";
  EXPECT_THAT(Paths({broken, Device("b", {Port(1, true, {V4(0)})})}), ElementsAre("b/1/0"));
  EXPECT_THAT(Paths({broken}), ElementsAre(HasSubstr("a: can't open the device: Permission")));
}

TEST(RdmaDiscoveryTest, WritesGidsAsPeopleDo) {
  EXPECT_EQ(RdmaGidText(V4(0).bytes), "10.0.0.1");
  EXPECT_EQ(RdmaGidText(LinkLocal(0).bytes), "fe80::1");
  EXPECT_EQ(RdmaMtuBytes(1), 256U);
  EXPECT_EQ(RdmaMtuBytes(5), 4096U);
  EXPECT_EQ(RdmaMtuBytes(0), 0U);
  EXPECT_EQ(RdmaMtuBytes(6), 0U);
}

TEST(RdmaDiscoveryTest, ListsWithoutFailingWhateverTheKernelHas) {
  for (const RdmaDeviceInfo& device : ListRdmaDevices()) EXPECT_FALSE(device.name.empty());
}

TEST(MemlockTest, SaysHowMuchIsNeededHowMuchThereIsAndWhatToDo) {
  const absl::Status status =
      CheckMemlock({.limit_bytes = uint64_t{64} << 10}, uint64_t{64} << 20, "rxe0");
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("rxe0"), HasSubstr("64.0 MiB"),
                                                   HasSubstr("64.0 KiB"), HasSubstr("ulimit -l")));
}

TEST(MemlockTest, LetsThroughWhatFitsAndThoseWhoAreExempt) {
  EXPECT_EQ(CheckMemlock({.limit_bytes = 100}, 100, "a"), absl::OkStatus());
  EXPECT_EQ(CheckMemlock({.limit_bytes = 99}, 100, "a").code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(CheckMemlock({.limit_bytes = 99, .exempt = true}, 100, "a"), absl::OkStatus());
  EXPECT_EQ(CheckMemlock({.limit_bytes = UINT64_MAX}, uint64_t{1} << 50, "a"), absl::OkStatus());
}

}  // namespace
}  // namespace godwit
