/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef GODWIT_SYNTH_H
#define GODWIT_SYNTH_H

#include <linux/delay.h>
#include <linux/device.h>
#include <linux/eventfd.h>
#include <linux/fs.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/pci_regs.h>
#include <linux/poll.h>
#include <linux/vfio.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#define SYNTH_MAGIC 0x48544e5953574447ULL /* "GDWSYNTH" */
#define SYNTH_VERSION 1
#define SYNTH_REGISTERS 16
#define SYNTH_SIZE_MAX (2ULL << 30)
#define SYNTH_BOUNCE_BYTES SZ_64K
#define SYNTH_OFF U64_MAX

/* In the machine's own byte order, as every stream of the lab. */
struct synth_record {
	u32 type;
	u32 reserved;
	u64 bytes; /* that follow */
};

enum { SYNTH_BEGIN = 1, SYNTH_DATA = 2, SYNTH_END = 3 };

struct synth_begin {
	u64 magic;
	u32 version;
	u32 reserved;
	u64 seed;
	u64 size_bytes;
	u32 registers[SYNTH_REGISTERS]; /* as the device was opened for saving */
};

struct synth_end {
	u64 data_bytes; /* of all DATA records together */
	u32 registers[SYNTH_REGISTERS]; /* as the device was stopped */
};

#define SYNTH_BEGIN_BYTES (sizeof(struct synth_record) + sizeof(struct synth_begin))
#define SYNTH_END_BYTES (sizeof(struct synth_record) + sizeof(struct synth_end))
static_assert(SYNTH_BEGIN_BYTES >= SYNTH_END_BYTES);

/* All u64, so that one pair of functions shows and stores them; see the table of attributes. */
struct synth_params {
	u64 seed;
	u64 size_bytes;
	u64 migration_flags;
	u64 dma_logging;
	u64 reset_on_open;
	u64 load_in_write;
	u64 accept_truncated;
	u64 precopy_initial_bytes;
	u64 dirty_bytes_per_s;
	u64 dirty_bytes_per_info;
	u64 dirty_bytes_max;
	u64 dirty_needs_info;
	u64 empty_is_enomsg;
	u64 poll;
	u64 read_blocks;
	u64 first_read_bytes;
	u64 read_bytes_max;
	u64 write_bytes_max;
	u64 read_delay_ms;
	u64 write_delay_ms;
	u64 read_error_at;
	u64 read_errno;
	u64 write_error_at;
	u64 write_errno;
	u64 error_skips;
	u64 corrupt_at;
	u64 truncate_at;
	u64 dma_page_bytes;
	u64 dma_report_errno;
};

struct synth_arc {
	u32 delay_ms;
	u32 error; /* positive errno, 0: none */
};

struct synth_stream;

struct synth_range { /* of IOVAs, both ends included */
	struct list_head entry;
	u64 first;
	u64 last;
};

#define SYNTH_ARC_LOG 32

struct synth_device {
	struct vfio_device vdev;

	/* Guards all that follows, and the streams' fields. Taken before nothing else. */
	struct mutex lock;
	bool is_open;
	enum vfio_device_mig_state state;
	struct synth_stream *stream; /* of the present session, NULL outside of one */
	struct synth_params params;
	struct synth_arc arcs[VFIO_DEVICE_STATE_NR][VFIO_DEVICE_STATE_NR];

	u32 registers[SYNTH_REGISTERS];
	u8 config[PCI_CFG_SPACE_SIZE];
	u8 config_writable[PCI_CFG_SPACE_SIZE]; /* bit by bit */
	struct eventfd_ctx *intx;
	struct eventfd_ctx *msi;
	bool intx_masked;

	bool dma_log_on;
	u64 dma_log_page_bytes;
	struct list_head dma_log_ranges;
	struct list_head dma_dirty;

	/* What tests ask about. */
	u64 bytes_read;
	u64 bytes_written;
	bool loaded_ok;
	int last_error;
	u8 arc_log[SYNTH_ARC_LOG][2];
	unsigned int arc_log_count;
};


/* One data_fd. It outlives its session: dead from then on. */
struct synth_stream {
	struct kref kref;
	struct synth_device *synth;
	bool is_dead;
	wait_queue_head_t changed;
	struct delayed_work tick;
	u8 *bounce;

	u64 seed;
	u64 size_bytes;
	u64 position; /* in the stream */
	u64 data_bytes; /* of the pattern so far: its next byte's offset */

	/* The record that is read or written at the moment. */
	u8 head[SYNTH_BEGIN_BYTES];
	size_t head_bytes;
	size_t head_done;
	u64 data_left;

	/* Saving only. */
	bool has_begun;
	bool initial_is_queued;
	bool final_is_queued;
	bool end_is_queued;
	bool record_is_dirty; /* the present record, else initial or final */
	u64 initial_bytes; /* of pattern, in PRE_COPY */
	u64 dirty_bytes; /* made and not yet in a record */
	u64 dirty_ready_bytes; /* of these, what reads may have */
	u64 dirty_since_ns;
	bool read_error_done;

	/* Resuming only. */
	bool has_ended;
	u32 registers[SYNTH_REGISTERS];
	int write_error; /* the first, negative */
	int content_error; /* found, but told only at the end */
	bool write_error_done;
};

static inline struct synth_device *to_synth(struct vfio_device *vdev)
{
	return container_of(vdev, struct synth_device, vdev);
}

static inline bool is_saving(enum vfio_device_mig_state state)
{
	return state == VFIO_DEVICE_STATE_PRE_COPY || state == VFIO_DEVICE_STATE_PRE_COPY_P2P ||
	       state == VFIO_DEVICE_STATE_STOP_COPY;
}

static inline bool is_precopy(enum vfio_device_mig_state state)
{
	return is_saving(state) && state != VFIO_DEVICE_STATE_STOP_COPY;
}

static inline int failed(struct synth_device *synth, int error)
{
	synth->last_error = -error;
	return error;
}

static inline int wait_ms(u64 ms)
{
	if (ms && msleep_interruptible(ms))
		return -EINTR;
	return 0;
}

/* saving.c */
void synth_dirty_by_time(struct synth_stream *stream);
ssize_t synth_read(struct file *file, char __user *to, size_t bytes, loff_t *offset);
__poll_t synth_poll(struct file *file, struct poll_table_struct *table);
void synth_tick(struct work_struct *work);
long synth_stream_ioctl(struct file *file, unsigned int command, unsigned long arg);

/* loading.c */
ssize_t synth_write(struct file *file, const char __user *from, size_t bytes, loff_t *offset);
int synth_finish_loading(struct synth_device *synth);

/* streams.c */
struct file *synth_open_stream(struct synth_device *synth, bool saving);
void synth_end_stream(struct synth_device *synth);

/* states.c */
extern const char *const synth_state_names[VFIO_DEVICE_STATE_NR];
extern const struct vfio_migration_ops synth_mig_ops;

/* dma_log.c */
void synth_stop_dma_log(struct synth_device *synth);
int synth_log_dma(struct synth_device *synth, u64 iova, u64 length);
extern const struct vfio_log_ops synth_log_ops;

/* pci.c */
void synth_init_config(struct synth_device *synth);
ssize_t synth_region_read(struct vfio_device *vdev, char __user *to, size_t bytes, loff_t *position);
ssize_t synth_region_write(struct vfio_device *vdev, const char __user *from, size_t bytes, loff_t *position);
void synth_put_trigger(struct eventfd_ctx **trigger);
long synth_set_irqs_ioctl(struct synth_device *synth, void __user *arg);
long synth_device_info_ioctl(void __user *arg);
long synth_region_info_ioctl(void __user *arg);
long synth_irq_info_ioctl(void __user *arg);

/* vfio.c */
void synth_apply_features(struct synth_device *synth);
extern const struct vfio_device_ops synth_device_ops;

/* attributes.c */
extern const struct attribute_group *synth_groups[];

#endif
