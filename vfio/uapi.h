// The parts of the kernel's VFIO migration interface that Debian 12's <linux/vfio.h> (6.1) lacks,
// and the fixed-size forms of its variable-size structs.
//
// Constants of our own, so that a newer header can't clash; where it has the same fact, the
// static_asserts below hold the two together.
#ifndef GODWIT_VFIO_UAPI_H_
#define GODWIT_VFIO_UAPI_H_

#include <linux/vfio.h>

#include <cstdint>

namespace godwit::uapi {

// Indices of VFIO_DEVICE_FEATURE.
inline constexpr uint32_t kFeatureMigration = 1;
inline constexpr uint32_t kFeatureMigDeviceState = 2;
inline constexpr uint32_t kFeatureDmaLoggingStart = 6;
inline constexpr uint32_t kFeatureDmaLoggingStop = 7;
inline constexpr uint32_t kFeatureDmaLoggingReport = 8;
inline constexpr uint32_t kFeatureMigDataSize = 9;
inline constexpr uint32_t kFeatureMigPrecopyInfoV2 = 12;  // from kernel 7.1 on

// Bits of kFeatureMigration's flags.
inline constexpr uint64_t kMigrationStopCopy = 1;
inline constexpr uint64_t kMigrationP2p = 2;
inline constexpr uint64_t kMigrationPreCopy = 4;

// On a saving data_fd, in PRE_COPY and PRE_COPY_P2P only.
inline constexpr unsigned long kMigGetPrecopyInfo = _IO(VFIO_TYPE, VFIO_BASE + 21);

// Bit of PrecopyInfoArgument's flags; means something only once kFeatureMigPrecopyInfoV2 is set.
inline constexpr uint32_t kPrecopyInfoReinit = 1;

// On the fd of a cdev that nobody has bound yet; every other ioctl needs it first.
inline constexpr unsigned long kDeviceBindIommufd = _IO(VFIO_TYPE, VFIO_BASE + 18);

struct BindIommufdArgument {
  uint32_t argsz;
  uint32_t flags;
  int32_t iommufd;
  uint32_t out_devid;
};

struct FeatureHeader {
  uint32_t argsz;  // of header and payload together
  uint32_t flags;  // feature index, and GET, SET or PROBE
};

struct MigrationPayload {
  uint64_t flags;
};

struct MigStatePayload {
  uint32_t device_state;
  int32_t data_fd;
};

struct MigDataSizePayload {
  uint64_t stop_copy_length;
};

struct DmaRange {
  uint64_t iova;
  uint64_t length;
};

struct DmaLoggingStartPayload {
  uint64_t page_size;
  uint32_t num_ranges;
  uint32_t reserved;
  uint64_t ranges;  // address of DmaRange[num_ranges]
};

struct DmaLoggingReportPayload {
  uint64_t iova;
  uint64_t length;
  uint64_t page_size;
  uint64_t bitmap;  // address of uint64_t[]
};

struct PrecopyInfoArgument {
  uint32_t argsz;
  uint32_t flags;  // garbage on the way out before kernel 7.1
  uint64_t initial_bytes;
  uint64_t dirty_bytes;
};

static_assert(sizeof(FeatureHeader) == sizeof(vfio_device_feature));
static_assert(sizeof(MigrationPayload) == sizeof(vfio_device_feature_migration));
static_assert(sizeof(MigStatePayload) == sizeof(vfio_device_feature_mig_state));
static_assert(sizeof(PrecopyInfoArgument) == 24);
static_assert(sizeof(BindIommufdArgument) == 16);
static_assert(sizeof(DmaRange) == sizeof(vfio_device_feature_dma_logging_range));
static_assert(sizeof(DmaLoggingStartPayload) == sizeof(vfio_device_feature_dma_logging_control));
static_assert(sizeof(DmaLoggingReportPayload) == sizeof(vfio_device_feature_dma_logging_report));
static_assert(kFeatureDmaLoggingStart == VFIO_DEVICE_FEATURE_DMA_LOGGING_START);
static_assert(kFeatureDmaLoggingStop == VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP);
static_assert(kFeatureDmaLoggingReport == VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT);
static_assert(kFeatureMigration == VFIO_DEVICE_FEATURE_MIGRATION);
static_assert(kFeatureMigDeviceState == VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE);
static_assert(kMigrationStopCopy == VFIO_MIGRATION_STOP_COPY);
static_assert(kMigrationP2p == VFIO_MIGRATION_P2P);
#ifdef VFIO_DEVICE_FEATURE_MIG_DATA_SIZE
static_assert(kFeatureMigDataSize == VFIO_DEVICE_FEATURE_MIG_DATA_SIZE);
#endif
#ifdef VFIO_MIGRATION_PRE_COPY
static_assert(kMigrationPreCopy == VFIO_MIGRATION_PRE_COPY);
#endif
#ifdef VFIO_MIG_GET_PRECOPY_INFO
static_assert(kMigGetPrecopyInfo == VFIO_MIG_GET_PRECOPY_INFO);
#endif
#ifdef VFIO_DEVICE_BIND_IOMMUFD
static_assert(kDeviceBindIommufd == VFIO_DEVICE_BIND_IOMMUFD);
#endif

}  // namespace godwit::uapi

#endif  // GODWIT_VFIO_UAPI_H_
