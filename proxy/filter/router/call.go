package router

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/lb"
	"github.com/lateen-mesh/lateen/proxy/route"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/upstream"
)

// A call is the router's work for one stream.
type call struct {
	r       *router
	s       *http.Stream
	target  *route.Target
	forward *route.Forward
	cluster Cluster
	stats   *upstream.Stats
	tallies tallies
	limits  *upstream.Limits

	stream   http.ClientStream // of the present attempt, nil before and between
	endpoint *endpoint.Endpoint
	// connected is the endpoint of the last attempt that had a connection, nil before.
	connected *endpoint.Endpoint
	lb        lb.Context
	retry     retryState
	body      replay
	pump      pump

	grpc     bool
	began    time.Time    // when the call began
	received atomic.Int64 // when the request was wholly received, ns after its start; 0: not yet
	timeout  time.Duration
	perTry   time.Duration
	// perTryIdle ends an attempt in which nothing has come for so long.
	perTryIdle time.Duration
	altTimeout bool      // a timeout is answered with 204
	deadline   time.Time // of the whole request, zero: none
	cookie     []byte    // set-cookie of a hash policy, nil: none
	invalid    []byte    // name of a header whose value forbids sending the request, nil: none
	charged    bool
	anew       bool // the request begins anew, elsewhere
	informed   bool // the upstream has sent a 1xx head: its answer has begun

	fromProxy bool // a proxy counts the attempts, so one sent the request
}

func (k *call) begin(r *router, s *http.Stream, t *route.Target, c Cluster) {
	avoid, pieces := k.lb.Avoid[:0], k.body.copied[:0]
	*k = call{r: r, s: s, target: t, forward: t.Route.Forward, cluster: c, stats: c.Stats()}
	k.lb.Avoid, k.body.copied = avoid, pieces
	k.lb.Match, k.lb.Host = t.Subset(), s.Request.Authority
	k.limits = c.Limits(k.forward.Priority)
	k.began = time.Now()
	k.grpc = s.Request.IsGRPC()
	s.Info.Cluster = c.Name()
	k.findTallies()
}

// run makes attempts until one yields an answer, the stream's or our own.
func (k *call) run() {
	k.timeouts()
	k.retry.begin(k)
	k.finalize()
	k.lb.Hash, k.cookie, k.lb.HasHash = k.forward.Hash(&k.s.Request, &k.s.Info)
	k.body.begin(k)
	for {
		err := k.attempt()
		k.noteRead()
		if err == nil {
			again := k.answered()
			if !again {
				return
			}
		} else if !k.failed(err) {
			return
		}
		if !k.backOff() {
			return
		}
	}
}

// attempt sends the request once and reads the head of the answer.
func (k *call) attempt() error {
	s := k.s
	s.Info.Attempts++
	k.endpoint = k.pick()
	if k.endpoint == nil {
		k.stats.CxNoneHealthy.Inc()
		return errNoneHealthy
	}
	s.Info.Upstream = k.endpoint
	if k.invalid != nil {
		return errInvalid
	}
	k.autoHost()
	if s.Trace != nil {
		s.Trace.Inject(s)
	}
	for n := 0; ; n++ {
		err := k.try()
		if err == nil || n == maxMissed || !k.missed(err) {
			return err
		}
		k.drop()
		k.noteRead()
	}
}

// maxMissed bounds the kept-alive connections that one attempt may find ended.
const maxMissed = 4

// missed reports that the request came too late for a kept-alive connection: its peer
// had ended it and has taken no byte, so that another connection can carry it. That is
// not a failure of the endpoint, and no retry policy is asked.
func (k *call) missed(err error) bool {
	var reset *http.Reset
	return errors.As(err, &reset) && reset.Unused && k.stream != nil && k.stream.Reused() && !k.s.Left() && k.body.again(k)
}

// try sends the request on one connection and reads the head of the answer.
func (k *call) try() error {
	s, limit := k.s, k.limit()
	x, err := k.acquire(limit)
	if err != nil {
		return err
	}
	k.stream = x
	k.tallies.add(total)
	k.noteConnected()
	s.Info.UpstreamLocal = x.LocalAddr()
	if !s.Await(x) {
		return errLeft
	}
	return k.exchange(limit)
}

// acquire gets what carries the attempt.
func (k *call) acquire(limit time.Time) (http.ClientStream, error) {
	if k.raws() {
		return k.connect(limit)
	}
	pool := k.pool()
	if pool == nil { // there are too many (max_connection_pools)
		return nil, errNoneHealthy
	}
	x, err := pool.Acquire(k.s.Done(), limit)
	if err == nil {
		k.s.Info.UpstreamProtocol = x.Protocol().String()
	}
	return x, err
}

// noteConnected lists the endpoints that attempts were connected to, when there are several.
func (k *call) noteConnected() {
	i, before := &k.s.Info, k.connected
	i.UpstreamTLS = k.stream.Handshake() // of the last
	k.connected = k.endpoint
	if before == nil || slices.Contains(i.Attempted, k.endpoint) || before == k.endpoint {
		return
	}
	if i.Attempted == nil {
		i.Attempted = append(i.Attempted, before)
	}
	i.Attempted = append(i.Attempted, k.endpoint)
}

// limit is when an attempt that starts now ends, zero for never.
func (k *call) limit() time.Time {
	d := k.deadline
	one := k.perTry
	if k.idles() {
		one = k.perTryIdle
	}
	if one > 0 {
		if t := time.Now().Add(one); d.IsZero() || t.Before(d) {
			d = t
		}
	}
	return d
}

func (k *call) pool() *upstream.Pool {
	r := &k.s.Request
	return k.cluster.HTTP(k.endpoint, upstream.Wish{Priority: k.forward.Priority, Client: r.Protocol, Authority: r.Authority, ALPN: k.s.Info.UpstreamALPN, State: k.s.Info.FilterState, From: k.s.Info.Source(), To: k.s.Info.DownstreamLocal})
}

// exchange writes the request and reads the answer's head.
func (k *call) exchange(limit time.Time) error {
	s, x := k.s, k.stream
	if s.Info.UpstreamRequestSent == 0 {
		s.Info.UpstreamRequestSent = time.Since(s.Info.Start)
	}
	if k.asksTunnel() && !k.tunnels() {
		s.Tunnel()
	}
	rest, err := k.send()
	if err != nil {
		return err
	}
	if rest { // the time for an answer begins when the request is complete
		k.pump.start(k)
	} else {
		k.requestRead()
		if !limit.IsZero() {
			x.SetDeadline(limit)
		}
	}
	for {
		if rest {
			err = x.Await(&s.Response)
		} else {
			err = x.ReadHead(&s.Response)
		}
		if err != nil {
			return k.pumpFailed(err)
		}
		if code := s.Response.Status; code >= 200 || code == 101 {
			if k.tunnels() && (code == 101 || code < 300) {
				x.SetDeadline(time.Time{})
				s.Tunnel()
				k.pump.start(k)
			} else {
				k.begun()
			}
			return nil
		}
		k.informed = true
		k.stats.CountCode(s.Response.Status, false)
		if err := s.Inform(&s.Response); err != nil {
			return errLeft
		}
	}
}

// begun says that an answer has begun: what bounded the attempt bounds it no longer.
func (k *call) begun() {
	switch {
	case k.perTryIdle > 0:
		k.s.Response.Body = &paced{k.s.Response.Body, k, k.stream}
	case k.perTry > 0:
		k.stream.SetDeadline(k.deadline)
	}
}

// tunnels reports that the request asks for another protocol: what follows its head
// is sent when the upstream has agreed. Where it is we who agree it is sent at once.
func (k *call) tunnels() bool { return k.asksTunnel() && !k.raws() }

func (k *call) asksTunnel() bool {
	r := &k.s.Request
	return r.Upgrade != nil || string(r.Method) == "CONNECT"
}

// hangsUp reports that the end of the request's bytes is the end of its client: there are
// no halves of a connection of HTTP/1.
func (k *call) hangsUp() bool { return k.asksTunnel() && k.s.Request.Protocol < http.HTTP2 }

// requestRead notes that the request was wholly received; the pump calls it too.
func (k *call) requestRead() {
	if k.received.CompareAndSwap(0, max(1, int64(time.Since(k.s.Info.Start)))) {
		k.shadow()
	}
}

// noteRead takes over what the pump has found out meanwhile: the time for an answer
// began when the request was complete.
func (k *call) noteRead() {
	at := time.Duration(k.received.Load())
	if at == 0 {
		return
	}
	k.s.Info.RequestReceived, k.s.Info.UpstreamRequestEnd = at, at // what is read is sent on at once
	if k.pump.started() && k.timeout > 0 {
		k.deadline = k.s.Info.Start.Add(at + k.timeout)
	}
}

// sinceComplete is how long ago the request was wholly received, 0 if it was not.
func (k *call) sinceComplete(now time.Time) time.Duration {
	at := k.s.Info.RequestReceived
	if at == 0 {
		return 0
	}
	return max(0, now.Sub(k.s.Info.Start)-at)
}

// pumpFailed prefers the reason why the request could not be read.
func (k *call) pumpFailed(err error) error {
	if k.pump.running() {
		k.pump.stop(k)
	}
	if k.pump.read != nil {
		return errBody
	}
	return err
}

// answered judges the answer; true asks for another attempt.
func (k *call) answered() bool {
	s := k.s
	now := time.Now()
	s.Info.UpstreamResponse = now.Sub(s.Info.Start)
	code := s.Response.Status
	k.chargeEndpoint(code)
	if k.refusedByApplication() {
		k.stats.CountRetried(code)
		k.drop()
		return true
	}
	if k.mayRepeat() {
		switch k.retry.response(k, &s.Response) {
		case again:
			k.stats.CountRetried(code)
			k.drop()
			return true
		case exhausted:
			s.Info.Flags.Set(streaminfo.UpstreamRetryLimitExceeded)
		case refused:
			s.Info.Flags.Set(streaminfo.UpstreamOverflow)
		}
	}
	if k.retry.tries > 0 && code < 500 {
		k.stats.RqRetrySuccess.Inc()
		k.tallies.add(retriedWell)
	}
	if k.anew = k.follows(); k.anew {
		k.charge(code, now)
		k.drop()
		s.Info.Code, s.Info.CodeDetails = code, "internal_redirect"
		return false
	}
	k.charge(code, now)
	s.Info.Code, s.Info.CodeDetails = code, "via_upstream"
	if s.Request.Upgrade != nil && code != 101 {
		s.StopBody()
		if code < 400 && http.EqualFold(s.Request.Upgrade, "websocket") {
			k.noUpgrade()
			return false
		}
	}
	k.decorate(now)
	return false
}

// decorate adds the router's headers to the answer.
func (k *call) decorate(now time.Time) {
	s := k.s
	h := &s.Response.Headers
	if !k.r.quiet && k.complete() { // not if the answer came before the request
		h.Set("x-envoy-upstream-service-time", s.Keep(strconv.AppendInt(s.Scratch(), k.sinceComplete(now).Milliseconds(), 10)))
	}
	if k.target.VirtualHost.IncludeAttemptCountInResponse {
		h.Set("x-envoy-attempt-count", s.Keep(strconv.AppendInt(s.Scratch(), int64(s.Info.Attempts), 10)))
	}
	if k.cookie != nil {
		h.Add([]byte("set-cookie"), k.cookie)
	}
	k.target.EditResponse(s, k.target.Weighted)
}

// complete reports that the request has come to its end, also that of a tunnel which
// nobody has read so far.
func (k *call) complete() bool {
	body := k.s.Request.Body
	if x, ok := body.(interface{ Ended() bool }); ok && k.tunnels() {
		return x.Ended()
	}
	return body.Done()
}

// noUpgrade makes the answer of an upstream that refuses to change the protocol a
// plain one without body.
func (k *call) noUpgrade() {
	s := k.s
	s.Info.CodeDetails = "websocket_handshake_unsuccessful"
	s.Response.Headers.Remove("content-length")
	s.Response.Headers.Remove("content-type")
	s.Response.ContentLength, s.Response.Body = 0, http.NoBody
}

// mayRepeat reports that the request can be sent again: it was wholly received, its body is
// still there, and no upstream has begun to answer it.
func (k *call) mayRepeat() bool {
	return k.retry.policy != nil && !k.informed && k.s.Request.Body.Done() && k.pump.settled() && k.body.whole()
}

// chargeEndpoint counts an answer for the endpoint.
func (k *call) chargeEndpoint(code int) {
	k.cluster.Answered(k.endpoint, &k.s.Response)
	if k.s.Response.Headers.Has("x-envoy-immediate-health-check-fail") {
		if c, ok := k.cluster.(interface{ Refuse(*endpoint.Endpoint) }); ok {
			c.Refuse(k.endpoint)
		}
	}
	if code >= 500 {
		k.endpoint.Errors.Add(1)
	} else {
		k.endpoint.Successes.Add(1)
	}
}

// charge counts the final answer for the cluster.
func (k *call) charge(code int, now time.Time) {
	if k.charged || k.s.Info.HealthCheck {
		return
	}
	k.charged = true
	k.stats.CountCode(code, false)
	k.tallies.code(code)
	if k.s.Info.RequestReceived > 0 && k.s.Info.UpstreamResponse > 0 {
		ms := uint64(k.sinceComplete(now).Milliseconds())
		k.stats.RqTime.Record(ms)
		k.tallies.time(ms)
	}
}

// drop ends the present attempt.
func (k *call) drop() {
	if k.stream == nil {
		return
	}
	k.s.Settle()
	if !k.pumpOver() {
		k.pump.stop(k)
	}
	k.stream.Release()
	k.stream = nil
}

// pumpOver reports that the pump has ended, or has sent all and is about to: to stop it
// would cost the client a connection on which nothing is wrong.
func (k *call) pumpOver() bool {
	return !k.pump.running() || k.s.Request.Body.Done() && k.pump.settled()
}

// end ends the call with its stream.
func (k *call) end() {
	k.drop()
	k.retry.end(k)
	clear(k.lb.Avoid[:cap(k.lb.Avoid)])
	avoid, copied := k.lb.Avoid[:0], k.body.copied
	if cap(copied) > maxKeptBody {
		copied = nil
	}
	*k = call{}
	k.lb.Avoid, k.body.copied = avoid, copied
}

const maxKeptBody = 16 << 10

var (
	errNoneHealthy = errors.New("no healthy upstream")
	errLeft        = errors.New("the client has left")
	errInvalid     = errors.New("the request's head cannot be sent")
	errBody        = errors.New("the request's body broke off")
)

// timedOut reports whether err is a deadline, and whether that of the whole request.
func (k *call) timedOut(err error) (late, whole bool) {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false, false
	}
	return true, !k.deadline.IsZero() && !time.Now().Before(k.deadline)
}
