// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// WindowKind says how the windows of a limit follow each other.
type WindowKind uint8

// The kinds. Minute and Hour slide; Day, Week (from Monday) and Month are of
// the calendar; Total never ends; Fixed windows have a length of their own and
// follow each other from the limit's Anchor; Instant is that of concurrency,
// which is no time at all.
const (
	Instant WindowKind = iota
	Minute
	Hour
	Day
	Week
	Month
	Total
	Fixed
)

// What the length of a Fixed window may be.
const (
	MinLength = time.Minute
	MaxLength = 36_500 * day // a hundred years
)

const (
	day  = 24 * time.Hour
	week = 7 * day

	daySeconds  = int64(day / time.Second)
	weekSeconds = int64(week / time.Second)
)

// Window is the time that a limit is for.
type Window struct {
	Kind WindowKind
	// Length is the length of a Fixed window, in whole seconds; 0 for others.
	Length time.Duration
}

// windowNames are the windows that have names, from Minute to Total.
var windowNames = [...]string{"minute", "hour", "day", "week", "month", "total"}

// lengthUnits are what durations are written in, the largest first.
var lengthUnits = [...]struct {
	letter byte
	length time.Duration
}{{'w', week}, {'d', day}, {'h', time.Hour}, {'m', time.Minute}, {'s', time.Second}}

// String is the window as ParseWindow reads it: minute, hour, day, week, month,
// total, or a duration in the largest of the units d, h, m and s that divides
// it, such as 30d or 90m. That of Instant is empty.
func (w Window) String() string {
	switch {
	case w.Kind == Instant:
		return ""
	case w.Kind <= Total:
		return windowNames[w.Kind-Minute]
	}
	for _, unit := range lengthUnits[1:] { // weeks are given in days
		if w.Length%unit.length == 0 {
			return strconv.FormatInt(int64(w.Length/unit.length), 10) + string(unit.letter)
		}
	}
	return w.Length.String()
}

// ParseWindow reads one of the words minute, hour, day, week, month and total,
// in either case, or a duration such as 30d, 12h, 90m or 1d12h, from MinLength
// to MaxLength. A duration is always Fixed: 1h isn't hour, which slides. The
// error says what is wrong and how it is right.
func ParseWindow(text string) (Window, error) {
	text = strings.TrimSpace(text)
	name := lower(text)
	for i, known := range windowNames {
		if name == known {
			return Window{Kind: Minute + WindowKind(i)}, nil
		}
	}
	if name == "" {
		return Window{}, errors.New("the window is missing; write " + windowForms)
	}
	if name[0] < '0' || name[0] > '9' {
		return Window{}, fmt.Errorf("unknown window %s%s; write %s", quoted(text), didYouMean(nearest(name, windowNames[:])), windowForms)
	}
	length, err := parseLength(text)
	if err != nil {
		return Window{}, fmt.Errorf("window %s: %w", quoted(text), err)
	}
	return Window{Kind: Fixed, Length: length}, nil
}

const windowForms = "minute, hour, day, week, month, total, or a duration such as 30d or 12h"

// parseLength reads a duration in lengthUnits, each at most once and the largest
// first. A capital M is refused, for half of its readers take it for a month.
func parseLength(text string) (time.Duration, error) {
	if strings.Contains(text, "M") {
		return 0, errors.New("the letter M may be minutes or months; write m for minutes, the word month, or days such as 30d")
	}
	var sum time.Duration
	rest := lower(text)
	for _, unit := range lengthUnits {
		digits := leadingDigits(rest)
		if digits == 0 || digits == len(rest) || rest[digits] != unit.letter {
			continue
		}
		n, err := strconv.ParseInt(rest[:digits], 10, 64)
		if err != nil || n > int64(MaxLength/unit.length) { // they are digits, so there are too many
			return 0, errTooLong
		}
		sum += time.Duration(n) * unit.length
		rest = rest[digits+1:]
	}
	switch {
	case rest != "":
		return 0, errors.New("this is no duration; write whole numbers of d, h, m and s, the largest first, such as 30d, 90m or 1d12h")
	case sum > MaxLength:
		return 0, errTooLong
	case sum < MinLength:
		return 0, errors.New("this is shorter than a minute, the shortest window; write 1m or longer")
	}
	return sum, nil
}

var errTooLong = errors.New("this is longer than a hundred years; write total for a limit that never starts anew")

// Sliding says whether the window is always the time just before now, so that
// use leaves it little by little.
func (w Window) Sliding() bool { return w.Kind == Minute || w.Kind == Hour }

// Short says whether the window is an hour or less, which makes its limit a
// rate rather than a budget: waiting is worth it. Instant isn't short.
func (w Window) Short() bool {
	return w.Sliding() || w.Kind == Fixed && w.Length <= time.Hour
}

// Durable says whether the count of a limit of u in that window is kept in
// storage: every one of USD, and those of an hour or longer.
func (w Window) Durable(u Unit) bool {
	switch w.Kind {
	case Instant:
		return false
	case Minute:
		return u == USD
	case Fixed:
		return u == USD || w.Length >= time.Hour
	default:
		return true
	}
}

// Width is how long a window of this kind is: time.Minute or time.Hour of the
// sliding ones, the Length of a Fixed one, and 0 of those that have no length or
// not always the same.
func (w Window) Width() time.Duration {
	switch w.Kind {
	case Minute:
		return time.Minute
	case Hour:
		return time.Hour
	case Fixed:
		return w.Length
	default:
		return 0
	}
}

// Span is the window [start, end) that at is in, in Unix seconds. Windows
// partition time: each begins where another ends. Those of the calendar are of
// zone (nil is UTC) and begin at the first instant of their first local date,
// whatever daylight saving does; a date that zone skips has no window, and time
// that repeats a date that is over already belongs to the one after it. Total
// is (math.MinInt64, math.MaxInt64). Fixed ones count from anchor in both
// directions. Sliding ones have no spans; theirs are the minutes and hours of
// Unix time. That of Instant is empty.
func (w Window) Span(at time.Time, zone *time.Location, anchor int64) (start, end int64) {
	now := at.Unix()
	switch w.Kind {
	case Day, Week, Month:
		return w.calendarSpan(now, zone)
	case Minute, Hour:
		return fixedSpan(now, w.Width(), 0)
	case Fixed:
		return fixedSpan(now, w.Length, anchor)
	case Total:
		return math.MinInt64, math.MaxInt64
	default:
		return now, now
	}
}

// fixedSpan is the window of that length that now is in. A length below a
// second, which no parsed window has, gives one that never ends: a limit must
// not become void by it.
func fixedSpan(now int64, length time.Duration, anchor int64) (start, end int64) {
	seconds := int64(length / time.Second)
	if seconds <= 0 {
		return math.MinInt64, math.MaxInt64
	}
	start = anchor + floorDiv(now-anchor, seconds)*seconds
	return start, start + seconds
}

// calendarSpan is the day, week or month that now is in. Local time is taken as
// seconds since 1970-01-01T00:00 on zone's wall clock.
func (w Window) calendarSpan(now int64, zone *time.Location) (start, end int64) {
	if zone == nil {
		zone = time.UTC
	}
	_, offset := time.Unix(now, 0).In(zone).Zone()
	local := w.localStart(now + int64(offset))
	start = reached(local, zone)
	for {
		local = w.localNext(local)
		end = reached(local, zone)
		if now < end {
			return start, end
		}
		// The clock was set back over the start of a window that has begun.
		start = end
	}
}

// localStart is the local time at which the window begins that a local time is
// in.
func (w Window) localStart(local int64) int64 {
	today := floorDiv(local, daySeconds)
	switch w.Kind {
	case Week:
		const thursday = 3 // of 1970-01-01, counted from Monday
		return (floorDiv(today+thursday, 7)*7 - thursday) * daySeconds
	case Month:
		year, month, _ := time.Unix(local, 0).UTC().Date()
		return time.Date(year, month, 1, 0, 0, 0, 0, time.UTC).Unix()
	default:
		return today * daySeconds
	}
}

// localNext is the local time at which the window after the one from local
// begins.
func (w Window) localNext(local int64) int64 {
	switch w.Kind {
	case Week:
		return local + weekSeconds
	case Month:
		year, month, _ := time.Unix(local, 0).UTC().Date()
		return time.Date(year, month+1, 1, 0, 0, 0, 0, time.UTC).Unix()
	default:
		return local + daySeconds
	}
}

// maxOffset is how far a local time may be ahead of UTC, by RFC 8536.
const maxOffset = 26 * 60 * 60

// reached is the first instant, in Unix seconds, at which the clock of zone
// shows local or later. (time.Date doesn't promise the first one where there
// are two, nor anything where there is none.)
func reached(local int64, zone *time.Location) int64 {
	for from := local - maxOffset; ; {
		offset, until := offsetAt(from, zone)
		first := max(from, local-offset)
		if first < until {
			return first
		}
		from = until
	}
}

// offsetAt is how far, in seconds, the clock of zone is ahead of UTC, and until
// when at least it stays so.
func offsetAt(unix int64, zone *time.Location) (offset, until int64) {
	at := time.Unix(unix, 0).In(zone)
	_, ahead := at.Zone()
	_, end := at.ZoneBounds()
	switch {
	case end.IsZero():
		return int64(ahead), math.MaxInt64
	case end.Unix() <= unix:
		// Go takes the 31st of December of a leap year for the next year where
		// it goes by a zone's general rule: from 2040 on (golang/go#81583).
		return int64(ahead), (floorDiv(unix, daySeconds) + 1) * daySeconds
	}
	return int64(ahead), end.Unix()
}

// floorDiv is a / b rounded down, for a positive b.
func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// leadingDigits is how many ASCII digits text begins with.
func leadingDigits(text string) int {
	return len(text) - len(strings.TrimLeft(text, "0123456789"))
}
