// Package bookinfo is the language of the four services of Bookinfo, the bookshop
// that people try a mesh with: what they tell each other, in JSON over HTTP, and
// how one asks another.
//
//	                 ┌► details              the book: author, year, pages, ISBN
//	browser ─► productpage
//	                 └► reviews ─► ratings   what two readers think; the stars that they gave
//
// reviews runs in three versions: v1 does not ask for ratings, v2 shows black stars,
// v3 red ones. How long a service waits for another, and how often it asks, is fixed:
// what a mesh makes of it is to be seen. The packages below are the services.
package bookinfo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// Port is where every service listens.
const Port = "9080"

// Details are what the service details knows of a book.
type Details struct {
	ID        int    `json:"id"`
	Author    string `json:"author"`
	Year      int    `json:"year"`
	Type      string `json:"type"`
	Pages     int    `json:"pages"`
	Publisher string `json:"publisher"`
	Language  string `json:"language"`
	ISBN10    string `json:"ISBN-10"`
	ISBN13    string `json:"ISBN-13"`
}

// Reviews are what readers think of a book, and who tells it.
type Reviews struct {
	ID      string   `json:"id"`
	Pod     string   `json:"podname"`
	Cluster string   `json:"clustername"` // "null" where it is not known
	Reviews []Review `json:"reviews"`
}

// A Review is what one reader thinks.
type Review struct {
	Reviewer string  `json:"reviewer"`
	Text     string  `json:"text"`
	Rating   *Rating `json:"rating,omitempty"` // nil where ratings are not asked for
}

// A Rating is a number of stars with their colour, or why there are none.
type Rating struct {
	Stars int    `json:"stars,omitempty"` // 1 to 5
	Color string `json:"color,omitempty"`
	Error string `json:"error,omitempty"`
}

// Ratings are the stars that readers gave a book, by reviewer.
type Ratings struct {
	ID      int            `json:"id"`
	Ratings map[string]int `json:"ratings"`
}

// passed are the headers that a service hands from the request that it answers to the
// requests that it makes for it: the trace, the user, and what says who he is. They have
// their canonical form.
var passed = [...]string{
	"X-Request-Id",
	"Traceparent", "Tracestate", "Baggage",
	"B3", "X-B3-Traceid", "X-B3-Spanid", "X-B3-Parentspanid", "X-B3-Sampled", "X-B3-Flags",
	"X-Ot-Span-Context", "Uber-Trace-Id", "Sw8", "Grpc-Trace-Bin", "X-Cloud-Trace-Context",
	"X-Datadog-Trace-Id", "X-Datadog-Parent-Id", "X-Datadog-Sampling-Priority",
	"End-User", "User-Agent", "Cookie", "Authorization", "Jwt",
}

// Passed returns the headers of a request that belong to the requests made for it.
func Passed(from http.Header) http.Header {
	to := http.Header{}
	for _, name := range passed {
		if values := from[name]; len(values) > 0 {
			to[name] = values
		}
	}
	return to
}

// maxAnswer bounds what a service reads of another's answer, in bytes.
const maxAnswer = 1 << 20

// A Peer is a service as another one sees it.
type Peer struct {
	URL    string        // of the service, such as http://details:9080
	Within time.Duration // how long one try may take
	Tries  int           // how often it is asked until it answers with 200
	Client *http.Client
	Failed func(error) // told why there is no answer, by many at once; may be nil
}

// Get asks for the JSON at path and reads it into answer. It returns the status of the
// last try, 500 if there was none, and an error unless it is 200 with JSON that fits.
func (p Peer) Get(ctx context.Context, path string, header http.Header, answer any) (status int, err error) {
	for range max(p.Tries, 1) {
		if status, err = p.try(ctx, path, header, answer); err == nil {
			return status, nil
		}
	}
	if p.Failed != nil {
		p.Failed(err)
	}
	return status, err
}

func (p Peer) try(ctx context.Context, path string, header http.Header, answer any) (status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.Within)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL+path, http.NoBody)
	if err != nil {
		return http.StatusInternalServerError, err
	}
	request.Header = header.Clone()
	response, err := p.Client.Do(request)
	if err != nil {
		return http.StatusInternalServerError, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	switch {
	case err != nil:
		return http.StatusInternalServerError, err
	case response.StatusCode != http.StatusOK:
		return response.StatusCode, fmt.Errorf("%s answers with status %d", p.URL+path, response.StatusCode)
	}
	if err := json.Unmarshal(body, answer); err != nil {
		return http.StatusInternalServerError, fmt.Errorf("%s: %w", p.URL+path, err)
	}
	return http.StatusOK, nil
}

// NewClient returns the client of a service. It keeps a connection only while there is
// much to do: without a mesh a Service balances connections, and a page that is loaded
// again is to show that there are others.
func NewClient() *http.Client {
	return &http.Client{
		Transport:     &http.Transport{MaxIdleConnsPerHost: 8, IdleConnTimeout: 300 * time.Millisecond, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// BookID is the number of the book that a request is about. Where it is none the
// request is answered with 400 and ok is false.
func BookID(w http.ResponseWriter, r *http.Request) (id int, ok bool) {
	id, err := strconv.Atoi(r.PathValue("id"))
	if err != nil {
		Fail(w, http.StatusBadRequest, errors.New("please provide a numeric product ID"))
	}
	return id, err == nil
}

// Reply answers with JSON.
func Reply(w http.ResponseWriter, status int, answer any) {
	body, err := json.Marshal(answer)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// Fail answers with {"error": …}.
func Fail(w http.ResponseWriter, status int, err error) {
	Reply(w, status, map[string]string{"error": err.Error()})
}

// Healthy answers requests that ask whether a service is well.
func Healthy(service string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		Reply(w, http.StatusOK, map[string]string{"status": service + " is healthy"})
	}
}
