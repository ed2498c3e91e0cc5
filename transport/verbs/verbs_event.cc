#include "transport/verbs/verbs_event.h"

namespace godwit {

VerbsEvent::Kind KindOfVerbsEvent(ibv_event_type type) {
  switch (type) {
    case IBV_EVENT_CQ_ERR:
    case IBV_EVENT_QP_FATAL:
    case IBV_EVENT_QP_REQ_ERR:
    case IBV_EVENT_QP_ACCESS_ERR:
    case IBV_EVENT_PATH_MIG_ERR:
      return VerbsEvent::Kind::kQueuePairDead;
    case IBV_EVENT_PORT_ERR:
      return VerbsEvent::Kind::kPortDown;
    case IBV_EVENT_PORT_ACTIVE:
      return VerbsEvent::Kind::kPortUp;
    case IBV_EVENT_LID_CHANGE:
    case IBV_EVENT_PKEY_CHANGE:
    case IBV_EVENT_SM_CHANGE:
    case IBV_EVENT_CLIENT_REREGISTER:
    case IBV_EVENT_GID_CHANGE:
      return VerbsEvent::Kind::kAddressChanged;
    case IBV_EVENT_DEVICE_FATAL:
      return VerbsEvent::Kind::kDeviceDead;
    case IBV_EVENT_COMM_EST:
    case IBV_EVENT_SQ_DRAINED:
    case IBV_EVENT_PATH_MIG:
    case IBV_EVENT_SRQ_ERR:  // there is none
    case IBV_EVENT_SRQ_LIMIT_REACHED:
    case IBV_EVENT_QP_LAST_WQE_REACHED:
    case IBV_EVENT_WQ_FATAL:  // neither
      return VerbsEvent::Kind::kOther;
  }
  return VerbsEvent::Kind::kOther;  // of a newer libibverbs
}

}  // namespace godwit
