package stats

// Flush ends an interval: quantiles of what came since the last one are shown until the
// next, and series of a Family that have rested for long are forgotten. The
// owner of the store calls it in regular steps.
func (s *Store) Flush() {
	s.mu.Lock()
	list := kept(s.histograms, (*Histogram).used)
	families := s.families
	s.mu.Unlock()
	for _, h := range list {
		h.flush()
	}
	for _, f := range families {
		f.expire()
	}
}
