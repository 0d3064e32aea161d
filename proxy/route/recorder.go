package route

import (
	"context"
	"fmt"
	"maps"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// A Recorder gathers why a decision fell as it did. The running proxy hands nil,
// which costs one check for each rule; explanations and configuration tests hand
// one in and read it afterwards. Not safe for concurrent use.
type Recorder struct {
	// Host says which domain the authority met, or that none did.
	Host string
	// Steps are the rules of the virtual host in the order in which they were tried.
	Steps []Step
	// Target is what was decided last, nil when no route table was asked.
	Target *Target
	// Notes are what filters would have done that is left to chance or takes time.
	Notes []string
	// Status, Details and Location are of the answer: of the proxy's own, or of one that
	// says that the request was let through to an upstream which was not asked.
	Status            int
	Details, Location string
	// Metadata is what filters have told of the request, by their names.
	Metadata map[string]map[string]any
}

// A Step is one rule that was tried.
type Step struct {
	VirtualHost string
	Index       int    // position in the virtual host, -1 for its TLS requirement
	Route       string // its name, "" when it has none
	Matched     bool
	Reason      string // what did not match; what matched for the rule that was taken
}

// String is one line of an explanation: `route[2] "v1": no, path prefix "/api" on "/"`.
func (s Step) String() string {
	verdict := "no"
	if s.Matched {
		verdict = "yes"
	}
	return fmt.Sprintf("route[%d] %q: %s, %s", s.Index, s.Route, verdict, s.Reason)
}

// Note takes what a filter would have done.
func (r *Recorder) Note(what string) { r.Notes = append(r.Notes, what) }

// Answer takes the head of the answer, with what is known of the stream.
func (r *Recorder) Answer(a *http.Response, i *streaminfo.Info) {
	r.Status, r.Details, r.Location = a.Status, i.CodeDetails, string(a.Headers.Get("location"))
	r.Metadata = maps.Clone(i.Metadata)
}

// domain notes by which domain vh was found and returns vh.
func (r *Recorder) domain(vh *VirtualHost, before string, host []byte, after string) *VirtualHost {
	if r != nil {
		r.Host = before + string(host) + after
	}
	return vh
}

type recorderKey struct{}

// WithRecorder makes a context in which whoever serves a connection tells r what is
// decided about its requests.
func WithRecorder(ctx context.Context, r *Recorder) context.Context {
	return context.WithValue(ctx, recorderKey{}, r)
}

// RecorderFrom is the Recorder of a context, nil for none.
func RecorderFrom(ctx context.Context) *Recorder {
	r, _ := ctx.Value(recorderKey{}).(*Recorder)
	return r
}
