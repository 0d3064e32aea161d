package http2

import "sync"

// A worker is a goroutine that serves streams one after the other, so that its stack
// grows once. The link's lock guards the workers of a Server that wait for a stream.
type worker struct {
	next *worker
	st   *ServerStream // to be served, nil while it waits
	quit bool
	wake sync.Cond
}

// maxWaiting is how many workers of one connection wait; they are dismissed when it rests.
const maxWaiting = 16

// employ gives a stream to a worker.
func (s *Server) employ(st *ServerStream) {
	w := s.waiting
	if w == nil {
		s.busy.Add(1)
		go s.work(st)
		return
	}
	s.waiting = w.next
	s.nwaiting--
	w.st = st
	w.wake.Signal()
}

// work is the goroutine of a worker.
func (s *Server) work(st *ServerStream) {
	defer s.busy.Done()
	w := &worker{}
	w.wake.L = &s.mu
	for st != nil {
		st.serve()
		st = s.next(w)
	}
}

// next waits for another stream, nil when there is no more.
func (s *Server) next(w *worker) *ServerStream {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.nwaiting >= maxWaiting {
		return nil
	}
	w.st, w.next = nil, s.waiting
	s.waiting = w
	s.nwaiting++
	for w.st == nil && !w.quit {
		w.wake.Wait()
	}
	return w.st
}

// dismiss ends the workers that wait.
func (s *Server) dismiss() {
	for w := s.waiting; w != nil; w = w.next {
		w.quit = true
		w.wake.Signal()
	}
	s.waiting, s.nwaiting = nil, 0
}
