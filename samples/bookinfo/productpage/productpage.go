// Package productpage is the service that shows a book: what details tells of it and
// what reviews tells, on one page.
//
//	GET  /productpage                       the page
//	GET  /, /index.html                     the way to it
//	POST /login                             username: signs in whoever says so; back to where he was
//	GET  /logout                            signs out
//	GET  /api/v1/products[/ID[/reviews|/ratings]]   the same as JSON
//	GET  /health, /metrics, /static/…
//
// Whoever has signed in is named in the header end-user of all requests that the page
// makes; meshes route by it. A page whose parts are missing says so and is a page all
// the same: its status is 200.
package productpage

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/lateen-mesh/lateen/samples/bookinfo"
)

// Patience is how long the page waits for an answer, and Tries how often it asks
// reviews: six seconds in all, less than reviews may wait for ratings.
const (
	Patience = 3 * time.Second
	Tries    = 2
)

// Options are the settings of an instance: the URLs of the services that it asks.
type Options struct {
	Details, Reviews, Ratings string // such as http://details:9080
	Client                    *http.Client
	Failed                    func(error) // as of bookinfo.Peer
}

//go:embed static
var static embed.FS

// A page is the service.
type page struct {
	details, reviews, ratings bookinfo.Peer
	asked                     counters
}

// New returns the service.
func New(o Options) http.Handler {
	peer := func(url string, tries int) bookinfo.Peer {
		return bookinfo.Peer{URL: url, Within: Patience, Tries: tries, Client: o.Client, Failed: o.Failed}
	}
	p := &page{details: peer(o.Details, 1), reviews: peer(o.Reviews, Tries), ratings: peer(o.Ratings, 1)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", index)
	mux.HandleFunc("GET /index.html", index)
	mux.HandleFunc("GET /productpage", p.show)
	mux.HandleFunc("POST /login", login)
	mux.HandleFunc("GET /logout", logout)
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, []byte("Product page is healthy"))
	})
	mux.HandleFunc("GET /metrics", p.asked.serve)
	mux.Handle("GET /static/", http.FileServerFS(static))
	mux.HandleFunc("GET /api/v1/products", func(w http.ResponseWriter, _ *http.Request) {
		bookinfo.Reply(w, http.StatusOK, []product{book(0)})
	})
	mux.HandleFunc("GET /api/v1/products/{id}", api(p.getDetails))
	mux.HandleFunc("GET /api/v1/products/{id}/reviews", api(p.getReviews))
	mux.HandleFunc("GET /api/v1/products/{id}/ratings", api(p.getRatings))
	return mux
}

// index and show write HTML.
func index(w http.ResponseWriter, r *http.Request) {
	name, _ := user(r)
	render(w, "index", view{User: name})
}

func (p *page) show(w http.ResponseWriter, r *http.Request) {
	name, _ := user(r)
	v := view{User: name, Product: book(0)}
	if details, _, err := p.getDetails(r, 0); err != nil {
		v.DetailsError = err.Error()
	} else {
		v.Details = details
	}
	if reviews, _, err := p.getReviews(r, 0); err != nil {
		v.ReviewsError = err.Error()
	} else {
		v.Reviews = reviews
	}
	render(w, "productpage", v)
}

func (p *page) getDetails(r *http.Request, id int) (answer bookinfo.Details, status int, err error) {
	status, err = p.ask(r, "details", p.details, id, &answer)
	return answer, status, err
}

func (p *page) getReviews(r *http.Request, id int) (answer bookinfo.Reviews, status int, err error) {
	status, err = p.ask(r, "reviews", p.reviews, id, &answer)
	return answer, status, err
}

func (p *page) getRatings(r *http.Request, id int) (answer bookinfo.Ratings, status int, err error) {
	status, err = p.ask(r, "ratings", p.ratings, id, &answer)
	return answer, status, err
}

// unavailable is an error in the words that people look for on the page.
type unavailable struct {
	service string
	err     error
}

func (u unavailable) Error() string {
	return "Sorry, product " + u.service + " are currently unavailable for this book."
}

func (u unavailable) Unwrap() error { return u.err }

// ask asks a service about a book for the request r, in the name of its user.
func (p *page) ask(r *http.Request, service string, peer bookinfo.Peer, id int, answer any) (status int, err error) {
	header := bookinfo.Passed(r.Header)
	header.Del("End-User") // who he is, the session says alone
	if name, ok := user(r); ok {
		header.Set("End-User", name)
	}
	status, err = peer.Get(r.Context(), "/"+service+"/"+strconv.Itoa(id), header, answer)
	if !errors.Is(r.Context().Err(), context.Canceled) { // else the browser did not wait
		p.asked.count(service, status)
	}
	if err != nil {
		return status, unavailable{service, err}
	}
	return status, nil
}

// api answers with what get finds, as JSON.
func api[T any](get func(*http.Request, int) (T, int, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id, ok := bookinfo.BookID(w, r)
		if !ok {
			return
		}
		answer, status, err := get(r, id)
		if err != nil {
			bookinfo.Fail(w, cmp.Or(status, http.StatusInternalServerError), err)
			return
		}
		bookinfo.Reply(w, status, answer)
	}
}
