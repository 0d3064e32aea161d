// Package ratings is the service that knows how many stars readers gave a book.
//
//	GET  /ratings/ID   {"id":0,"ratings":{"Reviewer1":5,"Reviewer2":4}}
//	POST /ratings/ID   {"Reviewer1":3}: what GET answers from now on, in this instance
//	GET  /health
package ratings

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"sync"

	"github.com/lateen-mesh/lateen/samples/bookinfo"
)

// Bounds of what is posted: the body in bytes, and books that are kept.
const (
	maxBody  = 64 << 10
	maxBooks = 1000
)

// A store holds what was posted, by book.
type store struct {
	mu     sync.RWMutex
	posted map[int]map[string]int
}

// New returns the service. What is posted is lost with it.
func New() http.Handler {
	s := &store{posted: map[int]map[string]int{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", bookinfo.Healthy("Ratings"))
	mux.HandleFunc("GET /ratings/{id}", s.get)
	mux.HandleFunc("POST /ratings/{id}", s.post)
	return mux
}

func (s *store) get(w http.ResponseWriter, r *http.Request) {
	if id, ok := bookinfo.BookID(w, r); ok {
		bookinfo.Reply(w, http.StatusOK, bookinfo.Ratings{ID: id, Ratings: s.of(id)})
	}
}

func (s *store) post(w http.ResponseWriter, r *http.Request) {
	id, ok := bookinfo.BookID(w, r)
	if !ok {
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		bookinfo.Fail(w, http.StatusRequestEntityTooLarge, err)
		return
	}
	ratings, err := parse(body)
	if err != nil {
		bookinfo.Fail(w, http.StatusBadRequest, err)
		return
	}
	if err := s.keep(id, ratings); err != nil {
		bookinfo.Fail(w, http.StatusInsufficientStorage, err)
		return
	}
	bookinfo.Reply(w, http.StatusOK, bookinfo.Ratings{ID: id, Ratings: ratings})
}

func (s *store) of(id int) map[string]int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if posted := s.posted[id]; posted != nil {
		return maps.Clone(posted)
	}
	return map[string]int{"Reviewer1": 5, "Reviewer2": 4}
}

func (s *store) keep(id int, ratings map[string]int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.posted[id] == nil && len(s.posted) == maxBooks {
		return errors.New("too many books have ratings")
	}
	s.posted[id] = maps.Clone(ratings)
	return nil
}

// parse reads stars by reviewer.
func parse(body []byte) (ratings map[string]int, err error) {
	if err := json.Unmarshal(body, &ratings); err != nil || ratings == nil {
		return nil, errors.New("please provide valid ratings JSON")
	}
	for _, stars := range ratings {
		if stars < 1 || stars > 5 {
			return nil, errors.New("ratings are numbers from 1 to 5")
		}
	}
	return ratings, nil
}
