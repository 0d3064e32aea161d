package kube

import "github.com/lateen-mesh/lateen/control/config"

// An Entry is what is known of one object of the API.
type Entry struct {
	Version  string         // the resourceVersion that was read last; "": the object is not there
	InForce  *config.Config // nil if nothing of it is
	Problems []config.Problem
	Stale    bool // it is broken as it is now, and an older state is in force
}

// Object tells what was read last of an object. The Store may have it a moment later.
func (s *Source) Object(key config.Key) Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	shelf := s.shelves[key.Kind]
	if shelf == nil || shelf.objects[key] == nil {
		return Entry{}
	}
	e := shelf.objects[key]
	return Entry{Version: e.version, InForce: e.good, Problems: e.problems, Stale: e.stale}
}
