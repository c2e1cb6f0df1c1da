package form

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"time"
)

// ErrBusy is the error for a large form that waited too long for a place, or that
// still waited when its request ended.
var ErrBusy = errors.New("Too many large forms are being read, try again later")

const (
	small    = 4 << 10 // bytes of a body that can be read without a place
	patience = 5 * time.Second
)

// Reader reads forms. Make one with NewReader.
type Reader struct {
	// places are the buffers in which large forms are read: no more than these at a
	// time, whatever is sent and however slowly. They are given out in the order in
	// which they were asked for.
	places chan *bytes.Buffer
}

// NewReader returns a Reader with 32 places.
func NewReader() *Reader {
	f := &Reader{places: make(chan *bytes.Buffer, 32)}
	for range cap(f.places) {
		f.places <- new(bytes.Buffer)
	}
	return f
}

// Drain reads what is left of a body that nobody wants, up to 256 KiB, as net/http does
// after the header of the answer is made. Done before, the answer says that the
// connection ends if the server stops meanwhile. A body that the client holds back
// until it is told to send it (RFC 9110 10.1.1) is left alone.
func Drain(r *http.Request) {
	if r.Body != nil && r.Header.Get("Expect") == "" {
		io.CopyN(io.Discard, r.Body, 256<<10)
	}
}

// read returns the body, and a function to call when it is no longer needed. The
// error may be an *http.MaxBytesError or ErrBusy.
func (f *Reader) read(r *http.Request, limit int64) (text []byte, done func(), err error) {
	if length := r.ContentLength; length >= 0 && length <= min(small, limit) {
		text = make([]byte, length) // net/http ends the body there
		_, err = io.ReadFull(r.Body, text)
		return text, func() {}, err
	}
	body := http.MaxBytesReader(nil, r.Body, limit)
	var head bytes.Buffer
	if r.ContentLength < 0 { // unknown
		_, err := head.ReadFrom(io.LimitReader(body, small+1))
		if err != nil || head.Len() <= small {
			return head.Bytes(), func() {}, err
		}
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case place := <-f.places:
		place.Write(head.Bytes())
		_, err = place.ReadFrom(body)
		return place.Bytes(), func() { place.Reset(); f.places <- place }, err
	case <-late.C:
		return nil, func() {}, ErrBusy
	case <-r.Context().Done(): // the service stops, or the client is gone
		return nil, func() {}, ErrBusy
	}
}
