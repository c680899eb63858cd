//! Where long runs of available pages are, without walking the whole bitmap each time.
//!
//! The bitmap is cut into regions. Of each region three figures are remembered: how many available pages
//! it starts with, how many it ends with, and its longest run. They are recomputed only when they are
//! asked for and the region has changed since: releasing and allocating single pages costs one store.

use super::bitmap::Bitmap;

/// Pages of a region: 128 MiB of 4 KiB pages, 4 KiB of bitmap.
pub(super) const REGION_PAGES: usize = 32_768;

#[derive(Clone, Copy, Debug, Default)]
struct Region {
    fresh: bool,
    /// Available pages that the region starts with.
    first: u32,
    /// Available pages that it ends with.
    last: u32,
    longest: u32,
}

/// The index of runs over one bitmap.
#[derive(Clone, Debug, Default)]
pub(super) struct RunIndex {
    regions: Vec<Region>,
}

impl RunIndex {
    /// Follows the bitmap to a new length, in bits.
    pub(super) fn resize(&mut self, length: usize) {
        self.regions
            .resize(length.div_ceil(REGION_PAGES), Region::default());
        // The region at the end has more or fewer pages than it was measured with.
        if let Some(last) = length.checked_sub(1) {
            self.touch(last, 1);
        }
    }

    /// Notes that bits of the range changed.
    pub(super) fn touch(&mut self, start: usize, count: usize) {
        let last = start + count.max(1) - 1;
        for region in &mut self.regions[start / REGION_PAGES..=last / REGION_PAGES] {
            region.fresh = false;
        }
    }

    /// The lowest run of at least `pages` set bits. O(regions), and O(region) for each that changed.
    pub(super) fn find(&mut self, bitmap: &Bitmap, pages: usize) -> Option<usize> {
        let length = bitmap.length();
        // A run that reaches into the region from the left.
        let (mut open_start, mut open_pages) = (0, 0);
        for index in 0..self.regions.len() {
            let start = index * REGION_PAGES;
            let end = length.min(start + REGION_PAGES);
            let region = self.measured(bitmap, index, start, end);
            if open_pages + region.first as usize >= pages {
                return Some(if open_pages == 0 { start } else { open_start });
            }
            if region.longest as usize >= pages {
                return run_within(bitmap, start, end, pages);
            }
            if region.first as usize == end - start {
                if open_pages == 0 {
                    open_start = start;
                }
                open_pages += end - start;
            } else {
                open_pages = region.last as usize;
                open_start = end - open_pages;
            }
        }
        None
    }

    fn measured(&mut self, bitmap: &Bitmap, index: usize, start: usize, end: usize) -> Region {
        if !self.regions[index].fresh {
            let mut region = Region {
                fresh: true,
                first: bitmap.run_length(start, end - start) as u32,
                last: 0,
                longest: 0,
            };
            for (run_start, run) in runs(bitmap, start, end) {
                region.longest = region.longest.max(run as u32);
                if run_start + run == end {
                    region.last = run as u32;
                }
            }
            self.regions[index] = region;
        }
        self.regions[index]
    }
}

/// The runs of set bits within `start..end`, ascending: where each begins and how long it is.
pub(super) fn runs(bitmap: &Bitmap, start: usize, end: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
    let mut position = start;
    std::iter::from_fn(move || {
        let found = bitmap.next_set(position).filter(|&found| found < end)?;
        let run = bitmap.run_length(found, end - found);
        position = found + run;
        Some((found, run))
    })
}

fn run_within(bitmap: &Bitmap, start: usize, end: usize, pages: usize) -> Option<usize> {
    runs(bitmap, start, end)
        .find(|&(_, run)| run >= pages)
        .map(|(found, _)| found)
}
