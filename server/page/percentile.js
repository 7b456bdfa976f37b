// Percentiles of a histogram's cumulative counts, interpolated within buckets; null without any.

export function percentile({ bounds_s, counts }, share, before = null) {
  const fresh = counts.map((count, i) => count - (before?.counts[i] ?? 0));
  const total = fresh.at(-1);
  if (!total) return null;
  const i = fresh.findIndex((count) => count >= share * total);
  if (i >= bounds_s.length) return bounds_s.at(-1);
  const [low, below] = i ? [bounds_s[i - 1], fresh[i - 1]] : [0, 0];
  return low + ((bounds_s[i] - low) * (share * total - below)) / (fresh[i] - below);
}
