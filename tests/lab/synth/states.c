// SPDX-License-Identifier: GPL-2.0-only
/* Migration states and the arcs between. */
#include <linux/err.h>
#include <linux/file.h>

#include "synth.h"

const char *const synth_state_names[VFIO_DEVICE_STATE_NR] = {
	"ERROR", "STOP", "RUNNING", "STOP_COPY", "RESUMING", "RUNNING_P2P", "PRE_COPY", "PRE_COPY_P2P",
};

static struct file *take_arc(struct synth_device *synth, enum vfio_device_mig_state next)
{
	enum vfio_device_mig_state now = synth->state;
	struct synth_arc *arc = &synth->arcs[now][next];
	struct file *file = NULL;
	int error;

	if (synth->arc_log_count < SYNTH_ARC_LOG) {
		synth->arc_log[synth->arc_log_count][0] = now;
		synth->arc_log[synth->arc_log_count][1] = next;
		synth->arc_log_count++;
	}
	if (wait_ms(arc->delay_ms))
		return ERR_PTR(-EINTR);
	if (arc->error)
		return ERR_PTR(-(long)arc->error);

	if (now == VFIO_DEVICE_STATE_RESUMING) {
		error = synth_finish_loading(synth);
		if (error)
			return ERR_PTR(error);
	}
	if (synth->stream && is_precopy(now))
		synth_dirty_by_time(synth->stream);
	if (!is_saving(next) && next != VFIO_DEVICE_STATE_RESUMING)
		synth_end_stream(synth);
	else if (!synth->stream)
		file = synth_open_stream(synth, is_saving(next));
	if (IS_ERR(file))
		return file;
	synth->state = next;
	if (synth->stream) {
		wake_up_all(&synth->stream->changed);
	}
	return file;
}

static struct file *synth_set_state(struct vfio_device *vdev, enum vfio_device_mig_state wanted)
{
	struct synth_device *synth = to_synth(vdev);
	enum vfio_device_mig_state next;
	struct file *file = NULL;
	int error;

	mutex_lock(&synth->lock);
	if (synth->state == VFIO_DEVICE_STATE_ERROR)
		file = ERR_PTR(-EIO);
	/* There is no such arc; but asked for a next state, the core of Linux 6.12 looks for ever. */
	else if (synth->state == VFIO_DEVICE_STATE_STOP_COPY && is_precopy(wanted))
		file = ERR_PTR(-EINVAL);
	while (!IS_ERR(file) && synth->state != wanted) {
		/* No arc that opens a file is followed by another. */
		if (WARN_ON(file))
			break;
		error = vfio_mig_get_next_state(vdev, synth->state, wanted, &next);
		file = error ? ERR_PTR(error) : take_arc(synth, next);
	}
	if (IS_ERR(file))
		failed(synth, PTR_ERR(file));
	mutex_unlock(&synth->lock);
	return file;
}

static int synth_get_state(struct vfio_device *vdev, enum vfio_device_mig_state *state)
{
	struct synth_device *synth = to_synth(vdev);

	mutex_lock(&synth->lock);
	*state = synth->state;
	mutex_unlock(&synth->lock);
	return 0;
}

static int synth_get_data_size(struct vfio_device *vdev, unsigned long *bytes)
{
	struct synth_device *synth = to_synth(vdev);
	struct synth_stream *stream;
	u64 left;

	mutex_lock(&synth->lock);
	stream = synth->stream;
	left = SYNTH_BEGIN_BYTES + SYNTH_END_BYTES + sizeof(struct synth_record) + synth->params.size_bytes;
	if (stream && is_saving(synth->state)) {
		left += stream->dirty_bytes + stream->head_bytes - stream->head_done + stream->data_left;
		if (stream->has_begun)
			left -= SYNTH_BEGIN_BYTES;
		if (stream->initial_is_queued)
			left -= stream->initial_bytes;
		if (stream->final_is_queued)
			left -= stream->size_bytes - (stream->initial_is_queued ? stream->initial_bytes : 0);
	}
	mutex_unlock(&synth->lock);
	*bytes = left;
	return 0;
}

const struct vfio_migration_ops synth_mig_ops = {
	.migration_set_state = synth_set_state,
	.migration_get_state = synth_get_state,
	.migration_get_data_size = synth_get_data_size,
};
