// Goal: who floods the port pushes out itself, and never who belongs here.
#include "transport/make_room.h"

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

namespace godwit {
namespace {

using std::chrono::milliseconds;

constexpr Clock::Duration kNow = std::chrono::seconds(100);

struct Connection {
  std::string name;
  std::string peer;
  int standing = 0;
  milliseconds ago{0};  // its last step
  bool is_ours = false;

  bool belongs() const { return is_ours; }
  size_t network() const { return NetworkOf(peer); }
  Clock::Duration stepped_at() const { return kNow - ago; }
  int shown() const { return standing; }
};

std::string Goes(const std::vector<Connection>& connections) {
  return WhoMakesRoom(connections.begin(), connections.end(), kNow)->name;
}

// `count` of one host, each with a port of its own.
std::vector<Connection> Crowd(const std::string& host, int count, int standing, milliseconds ago) {
  std::vector<Connection> crowd;
  crowd.reserve(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) {
    crowd.push_back(
        {host + " #" + std::to_string(i), host + ":" + std::to_string(1000 + i), standing, ago});
  }
  return crowd;
}
std::vector<Connection> operator+(std::vector<Connection> a, const std::vector<Connection>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

TEST(MakeRoomTest, OfThoseThatAreAlikeTheOldestGoes) {
  EXPECT_EQ(Goes(Crowd("10.0.0.1", 8, 0, milliseconds(1))), "10.0.0.1 #0");
}

TEST(MakeRoomTest, WhoHasShownLeastGoesFirst) {
  EXPECT_EQ(Goes({{"a", "10.0.0.1:1", 2}, {"b", "10.0.0.1:2", 1}, {"c", "10.0.0.1:3", 2}}), "b");
}

// Handshakes that are begun and go no further, so as to outlast a newcomer.
TEST(MakeRoomTest, WhoHasStalledGoesBeforeOneThatHasJustCome) {
  EXPECT_EQ(Goes(Crowd("10.0.0.1", 7, 2, milliseconds(501)) +
                 std::vector<Connection>{{"new", "10.0.0.1:9", 0, milliseconds(20)}}),
            "10.0.0.1 #0");
  EXPECT_EQ(Goes(Crowd("10.0.0.1", 7, 2, milliseconds(499)) +
                 std::vector<Connection>{{"new", "10.0.0.1:9", 0, milliseconds(20)}}),
            "new");
}

TEST(MakeRoomTest, ANetworkThatHasMoreThanAQuarterOfAllGoesFirst) {
  const std::vector<Connection> source = {{"source", "10.0.0.2:5", 0, milliseconds(400)}};
  EXPECT_EQ(Goes(source + Crowd("10.0.0.1", 7, 2, milliseconds(1))), "10.0.0.1 #0");
  // Two of eight are a quarter and no more.
  std::vector<Connection> all = source + Crowd("10.0.0.1", 2, 2, milliseconds(1));
  for (const char* const host : {"10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.7"}) {
    all = all + Crowd(host, 1, 2, milliseconds(1));
  }
  EXPECT_EQ(Goes(all), "source");
}

TEST(MakeRoomTest, WhoBelongsHereStaysWhileAnyoneElseIsThere) {
  std::vector<Connection> lanes = Crowd("10.0.0.2", 7, 0, milliseconds(4000));
  for (Connection& lane : lanes) lane.is_ours = true;
  EXPECT_EQ(Goes(lanes + std::vector<Connection>{{"stranger", "10.0.0.1:9", 2, milliseconds(1)}}),
            "stranger");
  EXPECT_EQ(Goes(lanes), "10.0.0.2 #0");
}

TEST(MakeRoomTest, AnIpv6HostIsItsNetwork) {
  EXPECT_EQ(NetworkOf("[2001:db8:0:1::1]:5"), NetworkOf("[2001:db8:0:1:ffff::2]:6"));
  EXPECT_NE(NetworkOf("[2001:db8:0:1::1]:5"), NetworkOf("[2001:db8:0:2::1]:5"));
  EXPECT_EQ(NetworkOf("[fe80::1%eth0]:5"), NetworkOf("[fe80::2%eth0]:5"));
  EXPECT_EQ(NetworkOf("10.0.0.1:5"), NetworkOf("10.0.0.1:6"));
  EXPECT_NE(NetworkOf("10.0.0.1:5"), NetworkOf("10.0.0.2:5"));
  EXPECT_EQ(NetworkOf("[::ffff:10.0.0.1]:5"), NetworkOf("[::ffff:10.0.0.1]:6"));
  EXPECT_NE(NetworkOf("[::ffff:10.0.0.1]:5"), NetworkOf("[::ffff:10.0.0.2]:5"));
  EXPECT_NE(NetworkOf("[::ffff:10.0.0.1]:5"), NetworkOf("[::1]:5"));
}

}  // namespace
}  // namespace godwit
