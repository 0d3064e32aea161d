// Package reviews is the service that knows what readers think of a book. Its
// versions differ in the stars that they show beside it.
//
//	v1   none; ratings is not called
//	v2   black; waits ten seconds for ratings
//	v3   red; waits two and a half
//
//	GET /reviews/ID
//	GET /health
package reviews

import (
	"net/http"
	"strconv"
	"time"

	"github.com/lateen-mesh/lateen/samples/bookinfo"
)

// Options are the settings of an instance.
type Options struct {
	Stars        string        // colour of the stars; "" asks for no ratings
	Ratings      bookinfo.Peer // asked where there are stars
	Pod, Cluster string        // who answers
}

// Patience is how long a version waits for ratings, by the colour of its stars.
func Patience(stars string) time.Duration {
	if stars == "black" {
		return 10 * time.Second
	}
	return 2500 * time.Millisecond
}

// New returns the service.
func New(o Options) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", bookinfo.Healthy("Reviews"))
	mux.HandleFunc("GET /reviews/{id}", func(w http.ResponseWriter, r *http.Request) {
		if id, ok := bookinfo.BookID(w, r); ok {
			bookinfo.Reply(w, http.StatusOK, o.answer(r, id))
		}
	})
	return mux
}

func (o Options) answer(r *http.Request, id int) bookinfo.Reviews {
	all := []bookinfo.Review{
		{Reviewer: "Reviewer1", Text: "Two pairs of twins, one town, and not a door that opens on the right person. I laughed on every page."},
		{Reviewer: "Reviewer2", Text: "Short, loud and very funny. Those who look for the depth of the later plays should begin with those."},
	}
	if o.Stars != "" {
		ratings, err := o.ratings(r, id)
		for i := range all {
			all[i].Rating = o.rating(ratings, err, all[i].Reviewer)
		}
	}
	return bookinfo.Reviews{ID: strconv.Itoa(id), Pod: o.Pod, Cluster: o.Cluster, Reviews: all}
}

func (o Options) ratings(r *http.Request, id int) (map[string]int, error) {
	var answer bookinfo.Ratings
	_, err := o.Ratings.Get(r.Context(), "/ratings/"+strconv.Itoa(id), bookinfo.Passed(r.Header), &answer)
	return answer.Ratings, err
}

// rating is what is said of one reviewer's stars; nil if he gave none.
func (o Options) rating(all map[string]int, err error, reviewer string) *bookinfo.Rating {
	stars, ok := all[reviewer]
	switch {
	case err != nil:
		return &bookinfo.Rating{Error: "Ratings service is currently unavailable"}
	case !ok:
		return nil
	}
	return &bookinfo.Rating{Stars: stars, Color: o.Stars}
}
