// SPDX-License-Identifier: GPL-2.0-only
/* Streams as files, and their lives. */
#include <linux/anon_inodes.h>
#include <linux/file.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "synth.h"

static void free_stream(struct kref *kref)
{
	struct synth_stream *stream = container_of(kref, struct synth_stream, kref);

	vfio_put_device(&stream->synth->vdev);
	kvfree(stream->bounce);
	kfree(stream);
}

static int synth_stream_release(struct inode *inode, struct file *file)
{
	struct synth_stream *stream = file->private_data;

	cancel_delayed_work_sync(&stream->tick);
	kref_put(&stream->kref, free_stream);
	return 0;
}

static const struct file_operations saving_fops = {
	.owner = THIS_MODULE,
	.read = synth_read,
	.unlocked_ioctl = synth_stream_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.release = synth_stream_release,
};

/* Whether a file can be polled at all is a property of its operations. */
static const struct file_operations polled_saving_fops = {
	.owner = THIS_MODULE,
	.read = synth_read,
	.poll = synth_poll,
	.unlocked_ioctl = synth_stream_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.release = synth_stream_release,
};

static const struct file_operations resuming_fops = {
	.owner = THIS_MODULE,
	.write = synth_write,
	.release = synth_stream_release,
};

static const struct file_operations *stream_fops(struct synth_device *synth, bool saving)
{
	if (!saving)
		return &resuming_fops;
	return synth->params.poll ? &polled_saving_fops : &saving_fops;
}

/* Both the device, until its session ends, and the file hold the stream. */
struct file *synth_open_stream(struct synth_device *synth, bool saving)
{
	struct synth_stream *stream = kzalloc(sizeof(*stream), GFP_KERNEL_ACCOUNT);
	struct file *file;

	if (!stream)
		return ERR_PTR(-ENOMEM);
	stream->bounce = kvmalloc(SYNTH_BOUNCE_BYTES, GFP_KERNEL_ACCOUNT);
	if (!stream->bounce) {
		kfree(stream);
		return ERR_PTR(-ENOMEM);
	}
	kref_init(&stream->kref);
	init_waitqueue_head(&stream->changed);
	INIT_DELAYED_WORK(&stream->tick, synth_tick);
	stream->synth = synth;
	stream->seed = synth->params.seed;
	stream->size_bytes = synth->params.size_bytes;
	stream->initial_bytes = min(synth->params.precopy_initial_bytes, stream->size_bytes);
	stream->dirty_since_ns = ktime_get_ns();
	get_device(&synth->vdev.device);

	file = anon_inode_getfile("godwit_synth", stream_fops(synth, saving), stream,
				  saving ? O_RDONLY : O_WRONLY);
	if (IS_ERR(file)) {
		kref_put(&stream->kref, free_stream);
		return file;
	}
	stream_open(file_inode(file), file);
	kref_get(&stream->kref);
	synth->stream = stream;
	if (saving)
		schedule_delayed_work(&stream->tick, msecs_to_jiffies(20));
	else
		synth->loaded_ok = false;
	return file;
}

void synth_end_stream(struct synth_device *synth)
{
	struct synth_stream *stream = synth->stream;

	if (!stream)
		return;
	synth->stream = NULL;
	WRITE_ONCE(stream->is_dead, true);
	wake_up_all(&stream->changed);
	kref_put(&stream->kref, free_stream);
}
