// Goal: what a user writes for RDMA devices is understood, or refused in words.
#include "engine/rdma_ports.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace godwit {
namespace {

using testing::HasSubstr;

TEST(RdmaDevicesTest, NothingIsTheBestOne) {
  const auto devices = ParseRdmaDevices("");
  ASSERT_TRUE(devices.ok()) << devices.status();
  ASSERT_EQ(devices->size(), 1U);
  EXPECT_EQ(devices->front().device_name, "");
  EXPECT_FALSE(devices->front().port.has_value());
  EXPECT_FALSE(devices->front().gid_index.has_value());
}

TEST(RdmaDevicesTest, SeveralWithPortAndGidInTheOrderGiven) {
  const auto devices = ParseRdmaDevices("mlx5_1/2/3,rxe0,mlx5_0/1");
  ASSERT_TRUE(devices.ok()) << devices.status();
  ASSERT_EQ(devices->size(), 3U);
  EXPECT_EQ((*devices)[0].device_name, "mlx5_1");
  EXPECT_EQ((*devices)[0].port, 2U);
  EXPECT_EQ((*devices)[0].gid_index, 3U);
  EXPECT_EQ((*devices)[1].device_name, "rxe0");
  EXPECT_FALSE((*devices)[1].port.has_value());
  EXPECT_EQ((*devices)[2].port, 1U);
  EXPECT_FALSE((*devices)[2].gid_index.has_value());
}

TEST(RdmaDevicesTest, RefusesWhatIsNoDevice) {
  for (const char* const text : {",", "rxe0,", "/1", "rxe0/", "rxe0/0", "rxe0/-1", "rxe0/one",
                                 "rxe0/1/", "rxe0/1/x", "rxe0/1/2/3", "rxe0/4294967296"}) {
    const absl::Status status = ParseRdmaDevices(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr("godwit devices")) << text;
  }
}

TEST(RdmaDevicesTest, RefusesOneTooMany) {
  EXPECT_TRUE(ParseRdmaDevices("a,b,c,d,e,f,g,h").ok());
  EXPECT_THAT(std::string(ParseRdmaDevices("a,b,c,d,e,f,g,h,i").status().message()),
              HasSubstr("8 at most"));
}

}  // namespace
}  // namespace godwit
