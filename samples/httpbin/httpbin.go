// Package httpbin is a stand-in for httpbin.org and for the two images that people
// run as httpbin: its paths, with their bodies, as far as examples of service
// meshes call them.
//
//	what came        /get /post /put /patch /delete /anything[/…] /headers /ip /user-agent /cookies
//	answers to order /status/N[,N:WEIGHT…] /response-headers?NAME=VALUE /delay/S /redirect/N
//	                 /redirect-to?url=U /cookies/set?NAME=VALUE /cookies/delete?NAME /cache[/S] /etag/E
//	bodies           /html /json /xml /robots.txt /uuid /base64/TEXT /bytes/N /stream-bytes/N /stream/N
//	                 /drip?duration=S&numbytes=N&delay=S&code=N /gzip /deflate /image[/png|jpeg|svg]
//	logins           /basic-auth/USER/PASSWORD /bearer
//	the server       /hostname
//
// The two images differ in form: New answers as kennethreitz/httpbin, whose
// headers are strings and which hides what load balancers add, NewGo as
// mccutchen/go-httpbin, whose headers and arguments are lists. NewSite answers as the
// site, which has a load balancer before it.
package httpbin

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"time"
)

// maxBody bounds what a request may send.
const maxBody = 10 << 20

// An application answers requests in the form of one of the images.
type application struct {
	lists bool // headers and arguments are lists, as of go-httpbin
}

// New returns the handler in the form of kennethreitz/httpbin, which httpbin.org
// runs. It answers every Host.
func New() http.Handler { return application{}.handler() }

// NewGo returns the handler in the form of mccutchen/go-httpbin.
func NewGo() http.Handler { return application{lists: true}.handler() }

// NewSite returns the handler in the form of httpbin.org: as New, and requests have
// the trace id of its load balancer unless they bring one.
func NewSite() http.Handler {
	next := New()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		const name = "X-Amzn-Trace-Id"
		if r.Header.Get(name) == "" {
			var id [12]byte
			_, _ = rand.Read(id[:])
			r.Header.Set(name, fmt.Sprintf("Root=1-%08x-%x", time.Now().Unix(), id))
		}
		next.ServeHTTP(w, r)
	})
}

func (a application) handler() http.Handler {
	mux := http.NewServeMux()
	a.echoes(mux)
	a.orders(mux)
	a.bodies(mux)
	a.logins(mux)
	return http.MaxBytesHandler(crossOrigin(mux), maxBody)
}

// crossOrigin lets scripts of every site read the answers, and says so when they
// ask first.
func crossOrigin(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		origin := r.Header.Get("Origin")
		if origin == "" {
			origin = "*"
		}
		w.Header().Set("Access-Control-Allow-Origin", origin)
		w.Header().Set("Access-Control-Allow-Credentials", "true")
		if r.Method != http.MethodOptions {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Access-Control-Allow-Methods", "GET, POST, PUT, DELETE, PATCH, OPTIONS")
		w.Header().Set("Access-Control-Max-Age", "3600")
		if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" {
			w.Header().Set("Access-Control-Allow-Headers", asked)
		}
	})
}
