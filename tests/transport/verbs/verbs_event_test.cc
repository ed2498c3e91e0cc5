// Goal: every asynchronous event of verbs is known for what it does to a session.
#include "transport/verbs/verbs_event.h"

#include <gtest/gtest.h>

#include <map>

namespace godwit {
namespace {

using Kind = VerbsEvent::Kind;

TEST(VerbsEventTest, EachEventHasItsKind) {
  const std::map<ibv_event_type, Kind> kinds = {
      {IBV_EVENT_CQ_ERR, Kind::kQueuePairDead},
      {IBV_EVENT_QP_FATAL, Kind::kQueuePairDead},
      {IBV_EVENT_QP_REQ_ERR, Kind::kQueuePairDead},
      {IBV_EVENT_QP_ACCESS_ERR, Kind::kQueuePairDead},
      {IBV_EVENT_PATH_MIG_ERR, Kind::kQueuePairDead},
      {IBV_EVENT_PORT_ERR, Kind::kPortDown},
      {IBV_EVENT_PORT_ACTIVE, Kind::kPortUp},
      {IBV_EVENT_GID_CHANGE, Kind::kAddressChanged},
      {IBV_EVENT_LID_CHANGE, Kind::kAddressChanged},
      {IBV_EVENT_PKEY_CHANGE, Kind::kAddressChanged},
      {IBV_EVENT_SM_CHANGE, Kind::kAddressChanged},
      {IBV_EVENT_CLIENT_REREGISTER, Kind::kAddressChanged},
      {IBV_EVENT_DEVICE_FATAL, Kind::kDeviceDead},
  };
  // One more than the last that this libibverbs knows: it may grow.
  for (int i = 0; i <= IBV_EVENT_WQ_FATAL + 1; ++i) {
    const auto type = static_cast<ibv_event_type>(i);
    const auto row = kinds.find(type);
    EXPECT_EQ(KindOfVerbsEvent(type), row == kinds.end() ? Kind::kOther : row->second)
        << ibv_event_type_str(type);
  }
}

}  // namespace
}  // namespace godwit
