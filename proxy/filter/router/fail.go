package router

import (
	"errors"
	"strconv"
	"time"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/wellknown"
)

// failed judges an attempt that yielded no answer; true asks for another one.
func (k *call) failed(err error) bool {
	s := k.s
	repeat := k.mayRepeat()
	k.dropFailed()
	late, whole := k.timedOut(err)
	var reset *http.Reset
	switch {
	case s.Left() || errors.Is(err, errLeft):
		k.gone()
		return false
	case errors.Is(err, errNoneHealthy):
		k.reply(http.Reply{Status: 503, Body: []byte("no healthy upstream"), Details: "no_healthy_upstream", Flag: streaminfo.NoHealthyUpstream})
		return false
	case errors.Is(err, errInvalid):
		k.reply(invalidReply(k.invalid))
		return false
	case whole:
		k.stats.RqTimeout.Inc()
		k.endpoint.Timeouts.Add(1)
		k.cluster.Report(k.endpoint, 504)
		k.reply(timeout("response_timeout"))
		return false
	case late:
		k.stats.RqPerTryTimeout.Inc()
		k.endpoint.Timeouts.Add(1)
		k.cluster.Report(k.endpoint, 504)
		reset = &http.Reset{Reason: http.LocalReset}
	case !errors.As(err, &reset):
		return false // errBody: the connection manager knows what the client did
	default:
		k.blame(reset)
	}
	if (repeat || k.unsent(reset)) && k.again(reset) {
		return true
	}
	if late {
		k.reply(timeout("upstream_per_try_timeout"))
		return false
	}
	k.reply(k.resetReply(reset))
	return false
}

// dropFailed releases the broken attempt; a body that was being pumped is lost then.
func (k *call) dropFailed() {
	if k.stream != nil {
		k.drop()
	}
}

// unsent reports a failure before the first byte of the request was taken.
func (k *call) unsent(reset *http.Reset) bool {
	return k.retry.policy != nil && reset.Unused && !k.pump.started() && k.body.untouched()
}

// again asks the retry policy.
func (k *call) again(reset *http.Reset) bool {
	switch k.retry.reset(k, reset) {
	case again:
		return true
	case exhausted:
		k.s.Info.Flags.Set(streaminfo.UpstreamRetryLimitExceeded)
	case refused:
		k.s.Info.Flags.Set(streaminfo.UpstreamOverflow)
	}
	return false
}

// blame counts a broken attempt for the endpoint.
func (k *call) blame(reset *http.Reset) {
	if reset.Reason == http.Overflow {
		k.s.Info.Upstream = nil
		return
	}
	k.endpoint.Errors.Add(1)
	if reset.Reason != http.RemoteConnectionFailure && reset.Reason != http.ConnectionTimeout {
		k.cluster.Report(k.endpoint, 503)
	}
}

// invalidReply is the answer to a request whose head, as the route edits it, could not
// be sent.
func invalidReply(name []byte) http.Reply {
	text := "invalid header value for: " + string(name)
	return http.Reply{Status: 503, Body: []byte(text), Details: "filter_removed_required_request_headers{" + underscored(text) + "}",
		Flag: streaminfo.DownstreamProtocolError}
}

func timeout(details string) http.Reply {
	return http.Reply{Status: 504, Body: []byte("upstream request timeout"), Details: details, Flag: streaminfo.UpstreamRequestTimeout}
}

// resetReply is the answer for a broken exchange.
func (k *call) resetReply(reset *http.Reset) http.Reply {
	text := "upstream connect error or disconnect/reset before headers. "
	if k.retry.tries > 0 {
		text += "retried and the latest "
	}
	text += "reset reason: " + reset.Reason.String()
	r := http.Reply{Status: 503, Body: []byte(text), Flag: reset.Reason.Flag(),
		Details: "upstream_reset_before_response_started{" + reset.Error() + "}"}
	if reset.Reason == http.ProtocolError {
		r.Status = 502
	}
	if reset.Reason == http.Overflow {
		r.Prepend = []http.Field{{Name: []byte("x-envoy-overloaded"), Value: []byte("true")}}
	}
	if k.r.inbound && reset.Unused && reset.Reason == http.RemoteConnectionFailure && k.fromProxy {
		r.Prepend = []http.Field{{Name: []byte(wellknown.UnsentHeader), Value: []byte("true")}}
	}
	k.s.Info.UpstreamFailureReason = underscored(reset.Detail)
	return r
}

// reply answers the stream with the headers that the route adds.
func (k *call) reply(r http.Reply) {
	s := k.s
	r.GRPCStatus = -1
	if k.target.VirtualHost.IncludeAttemptCountInResponse {
		r.Prepend = append(r.Prepend, http.Field{Name: []byte("x-envoy-attempt-count"), Value: strconv.AppendInt(nil, int64(s.Info.Attempts), 10)})
	}
	r.Prepend = prepend(s, k.target, r.Prepend)
	if r.Status/100 == 5 && k.stream == nil {
		s.Info.UpstreamResponse = 0
	}
	k.charge(r.Status, time.Time{})
	s.Reply(r)
}

// refusedBeyond is an attempt that the application behind the next proxy has refused.
var refusedBeyond = &http.Reset{Reason: http.RemoteConnectionFailure, Unused: true}

// refusedByApplication reports that the next proxy could not connect to its application,
// and that the retry policy has another attempt for that.
func (k *call) refusedByApplication() bool {
	h := &k.s.Response.Headers
	if k.r.inbound || k.s.Response.Status != 503 || !h.Has(wellknown.UnsentHeader) {
		return false
	}
	h.Remove(wellknown.UnsentHeader)
	return k.mayRepeat() && k.retry.reset(k, refusedBeyond) == again
}

// gone ends a call that nobody waits for any more; the connection manager knows why.
func (k *call) gone() { k.stats.RqCancelled.Inc() }

// underscored is how reasons stand in logs.
func underscored(text string) string {
	b := []byte(text)
	for i := range b {
		if b[i] == ' ' {
			b[i] = '_'
		}
	}
	return string(b)
}
