package http2

import (
	"encoding/binary"
	"math"

	"golang.org/x/net/http2"
)

// settle fills in Envoy's defaults.
func (o *Options) settle() {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def32 := func(v *uint32, d uint32) {
		if *v == 0 {
			*v = d
		}
	}
	def32(&o.MaxConcurrentStreams, 1024)
	def32(&o.InitialStreamWindow, 16<<20)
	def32(&o.InitialConnectionWindow, 24<<20)
	o.InitialStreamWindow = min(o.InitialStreamWindow, maxWindow)
	o.InitialConnectionWindow = min(max(o.InitialConnectionWindow, defaultWindow), maxWindow)
	def(&o.HeaderTable, 4096)
	def(&o.MaxHeadBytes, 60<<10)
	def(&o.MaxHeaders, 100)
	def(&o.MaxOutboundFrames, 10000)
	def(&o.MaxOutboundControlFrames, 1000)
	def(&o.MaxEmptyFrames, 1)
	def(&o.MaxPriorityFrames, 100)
	def(&o.MaxWindowUpdates, 10)
	if o.Stats == nil {
		o.Stats = &Stats{}
	}
}

// sayHello appends our SETTINGS and opens the connection's window.
func (l *link) sayHello() {
	o := &l.opts
	at := len(l.out)
	l.out = appendFrame(l.out, 0, http2.FrameSettings, 0, 0)
	if !l.server {
		l.out = appendSetting(l.out, http2.SettingEnablePush, 0)
	}
	l.out = appendSetting(l.out, http2.SettingHeaderTableSize, uint32(max(o.HeaderTable, 0)))
	connect := uint32(0)
	if o.AllowConnect {
		connect = 1
	}
	l.out = appendSetting(l.out, http2.SettingEnableConnectProtocol, connect) // which clients say, too
	l.out = appendSetting(l.out, http2.SettingMaxConcurrentStreams, o.MaxConcurrentStreams)
	l.out = appendSetting(l.out, http2.SettingInitialWindowSize, o.InitialStreamWindow)
	l.out[at+2] = byte(len(l.out) - at - frameHead)
	l.counted(true)
	if more := o.InitialConnectionWindow - defaultWindow; more > 0 {
		l.out = append32(l.out, http2.FrameWindowUpdate, 0, more)
		l.counted(false)
	}
}

// onSettings follows the peer's SETTINGS.
func (l *link) onSettings(f *frame) error {
	p := f.payload
	if f.id != 0 {
		return quietly(f.id, "SETTINGS on a stream")
	}
	if f.flags.Has(http2.FlagSettingsAck) {
		if len(p) > 0 {
			return breach(http2.ErrCodeFrameSize, "SETTINGS ack with payload")
		}
		l.onSettingsAck()
		return nil
	}
	if len(p)%6 != 0 {
		return breach(http2.ErrCodeFrameSize, "SETTINGS of invalid length")
	}
	l.mu.Lock()
	defer l.unlock()
	room := l.peerStreams
	if !l.server && !l.allowed {
		l.allowed, l.peerStreams = true, math.MaxUint32
	}
	for ; len(p) > 0; p = p[6:] {
		if err := l.setting(http2.SettingID(binary.BigEndian.Uint16(p)), binary.BigEndian.Uint32(p[2:])); err != nil {
			return err
		}
	}
	l.changed = l.changed || room != l.peerStreams
	l.out = appendFrame(l.out, 0, http2.FrameSettings, http2.FlagSettingsAck, 0)
	return l.countedControl()
}

// setting follows one entry; the lock is held.
func (l *link) setting(id http2.SettingID, v uint32) error {
	switch id {
	case http2.SettingHeaderTableSize:
		l.enc.resize(v)
	case http2.SettingEnablePush:
		if v > 1 || v == 1 && !l.server {
			return breach(CodeProtocol, "SETTINGS_ENABLE_PUSH invalid")
		}
	case http2.SettingMaxConcurrentStreams:
		l.peerStreams = v
	case http2.SettingInitialWindowSize:
		if v > maxWindow {
			return quietly(0, "SETTINGS_INITIAL_WINDOW_SIZE too large")
		}
		return l.shiftWindows(int64(v))
	case http2.SettingMaxFrameSize:
		if v < maxFrame || v > 1<<24-1 {
			return quietly(0, "SETTINGS_MAX_FRAME_SIZE invalid")
		}
	case http2.SettingEnableConnectProtocol:
		if v > 1 {
			return breach(CodeProtocol, "SETTINGS_ENABLE_CONNECT_PROTOCOL invalid")
		}
	}
	return nil
}

// onSettingsAck: the peer keeps to our SETTINGS from here on.
func (l *link) onSettingsAck() {
	l.dec.hpack.SetAllowedMaxDynamicTableSize(uint32(max(l.opts.HeaderTable, 0)))
	l.mu.Lock()
	defer l.mu.Unlock()
	if own := int64(l.opts.InitialStreamWindow); l.grant > own {
		for _, s := range l.streams {
			s.recvLeft -= l.grant - own
		}
		l.grant = own
	}
}
