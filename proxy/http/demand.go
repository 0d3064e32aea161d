package http

// A Demander is a Control whose routes may come on demand.
type Demander interface {
	// Demand asks for the routes of the request's host and waits for the answer, or until
	// the client leaves; the request is then routed anew.
	Demand()
}

// Demand asks for the routes of the request's host where they may come on demand, and waits
// for the answer.
func (s *Stream) Demand() {
	if d, ok := s.control.(Demander); ok {
		d.Demand()
	}
}
