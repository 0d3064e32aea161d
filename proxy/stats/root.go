package stats

// Root returns the scope of the whole Store, for stats that stand beside those of
// their owner ("cluster.x.grpc.total" counted by a filter of a listener).
func (s *Scope) Root() *Scope { return &Scope{store: s.store} }
