// Regions of images: what lies inside of them.

#include <math.h>

#include "dscc.h"

typedef struct {
  int64_t place[4];
  double weight[4];
} Sample;

typedef struct {
  const DLTensor *x, *rois, *out;
  const int64_t* images;
  int64_t channels, height, width, rows, columns, ratio;
  int average, half_pixel;
  double scale;
  int failed;
} Regions;

// The four neighbours of a point and their weights: none outside of the image, less than a pixel beyond its edge counts
// as the edge.
static Sample sample_at(double y, double x, int64_t height, int64_t width) {
  Sample sample = {{0, 0, 0, 0}, {0, 0, 0, 0}};
  if (!(y >= -1 && y <= (double)height && x >= -1 && x <= (double)width)) return sample;
  y = y < 0 ? 0 : y;
  x = x < 0 ? 0 : x;
  int64_t y0 = (int64_t)y, x0 = (int64_t)x, y1 = y0 + 1, x1 = x0 + 1;
  if (y0 >= height - 1) y = (double)(y0 = y1 = height - 1);
  if (x0 >= width - 1) x = (double)(x0 = x1 = width - 1);
  double dy = y - (double)y0, dx = x - (double)x0;
  return (Sample){{y0 * width + x0, y0 * width + x1, y1 * width + x0, y1 * width + x1},
                  {(1 - dy) * (1 - dx), (1 - dy) * dx, dy * (1 - dx), dy * dx}};
}

static void align(int64_t begin, int64_t end, void* data) {
  Regions* job = (Regions*)data;
  for (int64_t roi = begin; roi < end; ++roi) {
    double shift = job->half_pixel ? 0.5 : 0, edge[4];
    for (int i = 0; i < 4; ++i) edge[i] = dscc_real(job->rois, roi * 4 + i) * job->scale - shift;
    double width = edge[2] - edge[0], height = edge[3] - edge[1];
    if (!job->half_pixel) width = fmax(width, 1), height = fmax(height, 1);
    double bin_h = height / (double)job->rows, bin_w = width / (double)job->columns;
    int64_t high = job->ratio > 0 ? job->ratio : (int64_t)ceil(bin_h), wide = job->ratio > 0 ? job->ratio : (int64_t)ceil(bin_w);
    high = high < 0 ? 0 : high;
    wide = wide < 0 ? 0 : wide;
    int64_t samples = high * wide, bins = job->rows * job->columns;
    Sample* table = (Sample*)malloc((size_t)(bins * samples + 1) * sizeof(Sample));
    if (table == NULL) {
      job->failed = 1;
      return;
    }
    for (int64_t bin = 0; bin < bins; ++bin)
      for (int64_t s = 0; s < samples; ++s) {
        double y = edge[1] + (double)(bin / job->columns) * bin_h + ((double)(s / wide) + 0.5) * bin_h / (double)high;
        double x = edge[0] + (double)(bin % job->columns) * bin_w + ((double)(s % wide) + 0.5) * bin_w / (double)wide;
        table[bin * samples + s] = sample_at(y, x, job->height, job->width);
      }
    for (int64_t c = 0; c < job->channels; ++c) {
      int64_t plane = (job->images[roi] * job->channels + c) * job->height * job->width;
      for (int64_t bin = 0; bin < bins; ++bin) {
        double total = 0;
        for (int64_t s = 0; s < samples; ++s) {
          const Sample* sample = &table[bin * samples + s];
          for (int i = 0; i < 4; ++i) {
            double value = sample->weight[i] * dscc_real(job->x, plane + sample->place[i]);
            if (job->average)
              total += value;
            else if ((s == 0 && i == 0) || value > total)
              total = value;
          }
        }
        if (job->average) total /= samples > 1 ? (double)samples : 1;
        dscc_set_real(job->out, (roi * job->channels + c) * bins + bin, total);
      }
    }
    free(table);
  }
}

static int regions_fit(const DLTensor* x, const int64_t* images, int64_t count) {
  for (int64_t i = 0; i < count; ++i)
    if (images[i] < 0 || images[i] >= x->shape[0]) return 0;
  return 1;
}

// dscc.roi_align(vm, x (n, c, h, w), rois (r, 4), images (r,) of int64, scale, [rows, columns, ratio, average,
// half_pixel]): (r, c, rows, columns), means or maxima over samples between pixels; x, rois: float32 or float64.
DSCC_FUNCTION(roi_align) {
  (void)self, (void)count;
  const DLTensor *x = dscc_tensor(&args[1]), *rois = dscc_tensor(&args[2]), *images = dscc_tensor(&args[3]);
  const int64_t* options = dscc_numbers(&args[5], NULL);
  int64_t regions = rois->shape[0], shape[4] = {regions, x->shape[1], options[0], options[1]};
  const int64_t* at = (const int64_t*)dscc_data(images);
  if (!regions_fit(x, at, regions)) return dscc_fail("ValueError", "RoiAlign: a region lies in an image that is not there");
  TVMFFIObjectHandle out = dscc_new_tensor(4, shape, x->dtype);
  if (out == NULL) return -1;
  dscc_set_object(result, out);
  Regions job = {x,          rois,       dscc_tensor(result), at,
                 x->shape[1], x->shape[2], x->shape[3],         options[0],
                 options[1], options[2], (int)options[3],     (int)options[4],
                 dscc_real(dscc_tensor(&args[4]), 0), 0};
  dscc_parallel(regions, 16.0 * (double)dscc_elements(dscc_tensor(result)), align, &job);
  return job.failed ? dscc_fail("MemoryError", "there is not enough memory") : 0;
}

static void pool(int64_t begin, int64_t end, void* data) {
  const Regions* job = (const Regions*)data;
  int64_t bins = job->rows * job->columns;
  for (int64_t at = begin; at < end; ++at) {
    int64_t roi = at / job->channels, plane = (job->images[roi] * job->channels + at % job->channels) * job->height * job->width;
    int64_t edge[4];
    for (int i = 0; i < 4; ++i) edge[i] = (int64_t)round(dscc_real(job->rois, roi * 5 + 1 + i) * job->scale);
    int64_t wide = edge[2] - edge[0] + 1, high = edge[3] - edge[1] + 1;
    double bin_h = (double)(high < 1 ? 1 : high) / (double)job->rows, bin_w = (double)(wide < 1 ? 1 : wide) / (double)job->columns;
    for (int64_t bin = 0; bin < bins; ++bin) {
      double row = (double)(bin / job->columns), column = (double)(bin % job->columns), best = 0;
      int64_t y0 = (int64_t)floor(row * bin_h) + edge[1], y1 = (int64_t)ceil((row + 1) * bin_h) + edge[1];
      int64_t x0 = (int64_t)floor(column * bin_w) + edge[0], x1 = (int64_t)ceil((column + 1) * bin_w) + edge[0];
      int some = 0;
      for (int64_t y = y0 < 0 ? 0 : y0; y < y1 && y < job->height; ++y)
        for (int64_t x = x0 < 0 ? 0 : x0; x < x1 && x < job->width; ++x) {
          double value = dscc_real(job->x, plane + y * job->width + x);
          if (!some || value > best) best = value;
          some = 1;
        }
      dscc_set_real(job->out, at * bins + bin, best);
    }
  }
}

// dscc.roi_pool(vm, x (n, c, h, w), rois (r, 5), images (r,), scale, [rows, columns]): (r, c, rows, columns), the maxima
// over whole pixels; a region is image, x0, y0, x1, y1, and 0 where nothing of it lies in the image.
DSCC_FUNCTION(roi_pool) {
  (void)self, (void)count;
  const DLTensor *x = dscc_tensor(&args[1]), *rois = dscc_tensor(&args[2]);
  const int64_t *options = dscc_numbers(&args[5], NULL), *at = (const int64_t*)dscc_data(dscc_tensor(&args[3]));
  int64_t regions = rois->shape[0], shape[4] = {regions, x->shape[1], options[0], options[1]};
  if (!regions_fit(x, at, regions)) return dscc_fail("ValueError", "MaxRoiPool: a region lies in an image that is not there");
  TVMFFIObjectHandle out = dscc_new_tensor(4, shape, x->dtype);
  if (out == NULL) return -1;
  dscc_set_object(result, out);
  Regions job = {x,          rois, dscc_tensor(result), at, x->shape[1], x->shape[2], x->shape[3], options[0],
                 options[1], 0,    0,                   0,  dscc_real(dscc_tensor(&args[4]), 0),   0};
  dscc_parallel(regions * x->shape[1], 16.0 * (double)dscc_elements(dscc_tensor(result)), pool, &job);
  return 0;
}
