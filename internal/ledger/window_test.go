// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // the same zones wherever the tests run
)

// windowZones are where calendars are hard: clocks that change at midnight or
// just after it, by half an hour or two hours, in winter instead of summer, and
// the places that moved over the date line.
var windowZones = []string{
	"UTC", "Africa/Cairo", "Africa/Casablanca", "Africa/El_Aaiun", "Africa/Juba", "Africa/Khartoum", "Africa/Monrovia", "Africa/Sao_Tome",
	"Africa/Tripoli", "Africa/Windhoek", "America/Asuncion", "America/Bogota", "America/Campo_Grande", "America/Caracas",
	"America/Godthab", "America/Havana", "America/Los_Angeles", "America/Metlakatla", "America/Mexico_City", "America/Miquelon",
	"America/Montevideo", "America/New_York", "America/Port-au-Prince", "America/Punta_Arenas", "America/Santiago", "America/Sao_Paulo",
	"America/Scoresbysund", "America/St_Johns", "Antarctica/Casey", "Antarctica/Troll", "Antarctica/Vostok", "Asia/Amman", "Asia/Baku",
	"Asia/Beirut", "Asia/Damascus", "Asia/Dhaka", "Asia/Gaza", "Asia/Hong_Kong", "Asia/Kabul", "Asia/Kathmandu", "Asia/Kolkata",
	"Asia/Pyongyang", "Asia/Tehran", "Asia/Tokyo", "Asia/Ulaanbaatar", "Atlantic/Azores", "Australia/Eucla", "Australia/Lord_Howe",
	"Australia/Sydney", "Europe/Berlin", "Europe/Dublin", "Europe/Istanbul", "Europe/London", "Europe/Moscow", "Europe/Volgograd",
	"Pacific/Apia", "Pacific/Bougainville", "Pacific/Chatham", "Pacific/Easter", "Pacific/Fakaofo", "Pacific/Fiji", "Pacific/Honolulu",
	"Pacific/Kiritimati", "Pacific/Kwajalein", "Pacific/Marquesas", "Pacific/Norfolk", "Pacific/Tongatapu",
}

func loadZone(t testing.TB, name string) *time.Location {
	t.Helper()
	zone, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

// seededRand is the same in every run unless LEDGER_SEED says otherwise.
func seededRand(t testing.TB) *rand.Rand {
	t.Helper()
	seed, err := strconv.ParseUint(os.Getenv("LEDGER_SEED"), 10, 64)
	if err != nil {
		seed = 1
	}
	t.Logf("LEDGER_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func fixed(length time.Duration) Window { return Window{Kind: Fixed, Length: length} }

func TestWindow_TextReadsBack(t *testing.T) {
	for text, want := range map[string]Window{
		"minute": {Kind: Minute}, "hour": {Kind: Hour}, "day": {Kind: Day}, "week": {Kind: Week}, "month": {Kind: Month}, "total": {Kind: Total},
		"30d": fixed(30 * day), "12h": fixed(12 * time.Hour), "90m": fixed(90 * time.Minute), "1h": fixed(time.Hour), "1m": fixed(time.Minute),
		"61s": fixed(61 * time.Second), "7d": fixed(week), "36500d": fixed(MaxLength),
	} {
		got, err := ParseWindow(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("%s was read as %v, %v, want %v", text, got, err, want)
		}
	}
}

func TestParseWindow_IsLiberalInForm(t *testing.T) {
	for text, want := range map[string]string{
		"Month": "month", "TOTAL": "total", "1d12h": "36h", "1w": "7d", "2w3d": "17d", "1h30m": "90m", "1D": "1d", "60s": "1m", "24h": "1d",
		"0d90m": "90m", "007d": "7d", "1d0s": "1d",
	} {
		if got, err := ParseWindow(" " + text + "\t"); err != nil || got.String() != want {
			t.Errorf("%q was read as %v, %v, want %s", text, got, err, want)
		}
	}
}

func TestParseWindow_SaysWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"": "missing", "fortnight": "a duration such as 30d", "months": "did you mean month", "montj": "did you mean month", "years": "unknown window",
		"30": "no duration", "d": "unknown window", "30x": "no duration", "1.5h": "no duration", "-1d": "unknown window", "1h1d": "no duration", "1d1d": "no duration",
		"1d 12h": "no duration", "1mo": "no duration", "1M": "M may be minutes or months", "59s": "shorter than a minute", "0d": "shorter than a minute",
		"36501d": "hundred years", "36500d1s": "hundred years", "99999999999999999999s": "hundred years", "9223372036854775807w": "hundred years",
		"٣d": "unknown window", "1d\x00": "no duration", "\xff": "unknown window", "wee\u212a": "unknown window", "month/day": "unknown window",
		"5215w": "hundred years", strings.Repeat("9", 1000) + "d": "hundred years",
	} {
		got, err := ParseWindow(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q gave %v, %v; want an error with %q", text, got, err, want)
		}
	}
}

func TestWindow_Properties(t *testing.T) {
	for _, c := range []struct {
		window                              Window
		sliding, short, durable, durableUSD bool
		width                               time.Duration
	}{
		{window: Window{Kind: Instant}},
		{window: Window{Kind: Minute}, sliding: true, short: true, durableUSD: true, width: time.Minute},
		{window: Window{Kind: Hour}, sliding: true, short: true, durable: true, durableUSD: true, width: time.Hour},
		{window: Window{Kind: Day}, durable: true, durableUSD: true},
		{window: Window{Kind: Week}, durable: true, durableUSD: true},
		{window: Window{Kind: Month}, durable: true, durableUSD: true},
		{window: Window{Kind: Total}, durable: true, durableUSD: true},
		{window: fixed(time.Hour - time.Second), short: true, durableUSD: true, width: time.Hour - time.Second},
		{window: fixed(time.Hour), short: true, durable: true, durableUSD: true, width: time.Hour},
		{window: fixed(time.Hour + time.Second), durable: true, durableUSD: true, width: time.Hour + time.Second},
	} {
		w := c.window
		if w.Sliding() != c.sliding || w.Short() != c.short || w.Durable(USD) != c.durableUSD || w.Width() != c.width {
			t.Errorf("%v: sliding %v, short %v, durable for usd %v, width %v", w, w.Sliding(), w.Short(), w.Durable(USD), w.Width())
		}
		for u := Requests; u < NumUnits; u++ {
			if w.Durable(u) != c.durable {
				t.Errorf("%v: durable for %s is %v", w, u, w.Durable(u))
			}
		}
	}
}

func TestSpan_KnownCalendars(t *testing.T) {
	// All times but the last two columns are instants that have one name only.
	for _, c := range []struct {
		zone, window, at, start, end string
	}{
		{"UTC", "day", "2024-02-29T23:59:59Z", "2024-02-29T00:00:00Z", "2024-03-01T00:00:00Z"},
		{"UTC", "month", "2024-02-29T12:00:00Z", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"},
		{"UTC", "month", "2100-02-28T23:59:59Z", "2100-02-01T00:00:00Z", "2100-03-01T00:00:00Z"},
		{"UTC", "month", "2023-12-31T23:59:59Z", "2023-12-01T00:00:00Z", "2024-01-01T00:00:00Z"},
		{"UTC", "month", "1969-12-31T23:59:59.999Z", "1969-12-01T00:00:00Z", "1970-01-01T00:00:00Z"},
		{"UTC", "week", "2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z", "2024-01-08T00:00:00Z"},
		{"UTC", "week", "2023-12-31T23:59:59Z", "2023-12-25T00:00:00Z", "2024-01-01T00:00:00Z"},
		{"UTC", "week", "2021-01-01T00:00:00Z", "2020-12-28T00:00:00Z", "2021-01-04T00:00:00Z"},
		{"UTC", "week", "1970-01-01T00:00:00Z", "1969-12-29T00:00:00Z", "1970-01-05T00:00:00Z"},
		// 23 and 25 hours.
		{"America/New_York", "day", "2024-03-10T12:00:00-04:00", "2024-03-10T00:00:00-05:00", "2024-03-11T00:00:00-04:00"},
		{"America/New_York", "day", "2024-11-03T01:30:00-05:00", "2024-11-03T00:00:00-04:00", "2024-11-04T00:00:00-05:00"},
		{"Europe/Berlin", "month", "2024-03-31T02:59:59+01:00", "2024-03-01T00:00:00+01:00", "2024-04-01T00:00:00+02:00"},
		{"Europe/Berlin", "week", "2024-10-27T12:00:00+01:00", "2024-10-21T00:00:00+02:00", "2024-10-28T00:00:00+01:00"},
		{"Australia/Lord_Howe", "day", "2024-04-07T12:00:00+10:30", "2024-04-07T00:00:00+11:00", "2024-04-08T00:00:00+10:30"},
		{"Asia/Kathmandu", "day", "2024-06-01T00:00:00+05:45", "2024-06-01T00:00:00+05:45", "2024-06-02T00:00:00+05:45"},
		// No midnight: the day begins at one.
		{"America/Sao_Paulo", "day", "2018-11-04T01:00:00-02:00", "2018-11-04T01:00:00-02:00", "2018-11-05T00:00:00-02:00"},
		{"America/Sao_Paulo", "day", "2018-11-03T23:59:59-03:00", "2018-11-03T00:00:00-03:00", "2018-11-04T00:00:00-03:00"},
		{"Asia/Beirut", "day", "2024-03-31T05:00:00+03:00", "2024-03-31T01:00:00+03:00", "2024-04-01T00:00:00+03:00"},
		{"Africa/Cairo", "day", "2023-04-28T05:00:00+03:00", "2023-04-28T01:00:00+03:00", "2023-04-29T00:00:00+03:00"},
		{"America/Asuncion", "month", "2023-10-05T05:00:00-03:00", "2023-10-01T01:00:00-03:00", "2023-11-01T00:00:00-03:00"},
		// The clock goes from midnight back to eleven: 25 hours of the old day.
		{"America/Sao_Paulo", "day", "2018-02-17T23:30:00-03:00", "2018-02-17T00:00:00-02:00", "2018-02-18T00:00:00-03:00"},
		{"Africa/Cairo", "day", "2023-10-26T23:30:00+02:00", "2023-10-26T00:00:00+03:00", "2023-10-27T00:00:00+02:00"},
		// Two midnights: the first one counts.
		{"America/Havana", "day", "2023-11-05T00:30:00-05:00", "2023-11-05T00:00:00-04:00", "2023-11-06T00:00:00-05:00"},
		{"America/St_Johns", "day", "2006-10-29T12:00:00-03:30", "2006-10-29T00:00:00-02:30", "2006-10-30T00:00:00-03:30"},
		{"America/St_Johns", "day", "2006-10-28T23:30:00-03:30", "2006-10-29T00:00:00-02:30", "2006-10-30T00:00:00-03:30"},
		{"America/St_Johns", "day", "2006-10-28T23:30:00-02:30", "2006-10-28T00:00:00-02:30", "2006-10-29T00:00:00-02:30"},
		// A date that never was.
		{"Pacific/Apia", "day", "2011-12-29T12:00:00-10:00", "2011-12-29T00:00:00-10:00", "2011-12-31T00:00:00+14:00"},
		{"Pacific/Apia", "day", "2011-12-31T12:00:00+14:00", "2011-12-31T00:00:00+14:00", "2012-01-01T00:00:00+14:00"},
		{"Pacific/Apia", "month", "2011-12-31T12:00:00+14:00", "2011-12-01T00:00:00-10:00", "2012-01-01T00:00:00+14:00"},
		{"Pacific/Kwajalein", "day", "1993-08-20T23:59:59-12:00", "1993-08-20T00:00:00-12:00", "1993-08-22T00:00:00+12:00"},
		// Beyond the transitions that are listed one by one.
		{"Europe/Berlin", "day", "2040-12-31T12:00:00+01:00", "2040-12-31T00:00:00+01:00", "2041-01-01T00:00:00+01:00"},
		{"Pacific/Auckland", "day", "2040-12-31T12:00:00+13:00", "2040-12-31T00:00:00+13:00", "2041-01-01T00:00:00+13:00"},
		{"Europe/Berlin", "day", "2100-03-28T12:00:00+02:00", "2100-03-28T00:00:00+01:00", "2100-03-29T00:00:00+02:00"},
	} {
		w, err := ParseWindow(c.window)
		if err != nil {
			t.Fatal(err)
		}
		start, end := w.Span(instant(t, c.at), loadZone(t, c.zone), 0)
		if start != instant(t, c.start).Unix() || end != instant(t, c.end).Unix() {
			t.Errorf("the %s of %s in %s is %s to %s, want %s to %s", c.window, c.at, c.zone,
				time.Unix(start, 0).UTC(), time.Unix(end, 0).UTC(), instant(t, c.start).UTC(), instant(t, c.end).UTC())
		}
	}
}

func instant(t *testing.T, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestSpan_WithoutZoneIsUTC(t *testing.T) {
	at := time.Unix(1_700_000_000, 0)
	for _, kind := range []WindowKind{Day, Week, Month} {
		start, end := Window{Kind: kind}.Span(at, nil, 0)
		if wantStart, wantEnd := (Window{Kind: kind}).Span(at, time.UTC, 0); start != wantStart || end != wantEnd {
			t.Errorf("%d to %d, want %d to %d", start, end, wantStart, wantEnd)
		}
	}
}

func TestSpan_OfWhatIsNoCalendar(t *testing.T) {
	for _, c := range []struct {
		window                  Window
		at, anchor, start, ends int64
	}{
		{Window{Kind: Total}, 5, 0, math.MinInt64, math.MaxInt64},
		{Window{Kind: Instant}, 5, 0, 5, 5},
		{Window{Kind: Minute}, 119, 7, 60, 120},
		{Window{Kind: Hour}, -1, 7, -3600, 0},
		{fixed(100 * time.Second), 1000, 1000, 1000, 1100},
		{fixed(100 * time.Second), 1099, 1000, 1000, 1100},
		{fixed(100 * time.Second), 1100, 1000, 1100, 1200},
		{fixed(100 * time.Second), 999, 1000, 900, 1000},
		{fixed(100 * time.Second), 900, 1000, 900, 1000},
		{fixed(100 * time.Second), 899, 1000, 800, 900},
		{fixed(0), 899, 1000, math.MinInt64, math.MaxInt64},
		{fixed(-time.Hour), 899, 1000, math.MinInt64, math.MaxInt64},
	} {
		start, end := c.window.Span(time.Unix(c.at, 999_999_999), time.UTC, c.anchor)
		if start != c.start || end != c.ends {
			t.Errorf("%v at %d from %d: %d to %d, want %d to %d", c.window, c.at, c.anchor, start, end, c.start, c.ends)
		}
	}
}

// transitions are the instants from 1990 to 2040 at which the zone's clock is
// set.
func transitions(zone *time.Location) []int64 {
	var list []int64
	at, to := time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC).Unix(), time.Date(2041, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	for {
		if _, at = offsetAt(at, zone); at > to {
			return list
		}
		list = append(list, at)
	}
}

func TestSpan_WindowsPartitionTimeInEveryZone(t *testing.T) {
	rng := seededRand(t)
	from, to := time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC).Unix(), time.Date(2041, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	for _, name := range windowZones {
		zone := loadZone(t, name)
		var instants []int64
		for _, at := range transitions(zone) {
			instants = append(instants, at-daySeconds, at-3601, at-1, at, at+1, at+3601)
		}
		for range 200 {
			instants = append(instants, from+rng.Int64N(to-from))
		}
		for _, at := range instants {
			for _, kind := range []WindowKind{Day, Week, Month} {
				checkPartition(t, Window{Kind: kind}, at, zone, 0)
			}
		}
	}
	for range 5000 {
		w := fixed(MinLength + time.Duration(rng.Int64N(int64(MaxLength/time.Second)>>rng.IntN(30)))*time.Second)
		checkPartition(t, w, from+rng.Int64N(to-from), time.UTC, rng.Int64N(to)-to/2)
	}
}

// checkPartition holds the window that at is in against what is promised.
func checkPartition(t *testing.T, w Window, at int64, zone *time.Location, anchor int64) {
	t.Helper()
	span := func(at int64) [2]int64 {
		start, end := w.Span(time.Unix(at, 0), zone, anchor)
		return [2]int64{start, end}
	}
	got := span(at)
	start, end := got[0], got[1]
	if at < start || at >= end {
		t.Fatalf("%s in %s: %d isn't in its window, %v", w, zone, at, got)
	}
	if first, last := span(start), span(end-1); first != got || last != got {
		t.Fatalf("%s in %s: the window %v of %d begins in %v and ends in %v", w, zone, got, at, first, last)
	}
	if next, before := span(end), span(start-1); next[0] != end || before[1] != start {
		t.Fatalf("%s in %s: the window %v of %d follows %v and is followed by %v", w, zone, got, at, before, next)
	}
	if w.Kind == Fixed {
		if end-start != int64(w.Length/time.Second) || (start-anchor)%(end-start) != 0 {
			t.Fatalf("%s from %d: %v", w, anchor, got)
		}
		return
	}
	checkDates(t, w, zone, start, end)
}

// checkDates proves by trying that a window of the calendar begins and ends at
// the first instants of their dates, and that these dates are the right ones.
func checkDates(t *testing.T, w Window, zone *time.Location, start, end int64) {
	t.Helper()
	wall := func(at int64) int64 {
		_, offset := time.Unix(at, 0).In(zone).Zone()
		return at + int64(offset)
	}
	for _, edge := range []int64{start, end} {
		at := time.Unix(edge, 0).In(zone)
		if w.Kind == Week && at.Weekday() != time.Monday || w.Kind == Month && at.Day() != 1 {
			t.Fatalf("a %s begins at %s", w, at)
		}
		year, month, date := at.Date()
		midnight := time.Date(year, month, date, 0, 0, 0, 0, time.UTC).Unix()
		if wall(edge-1) >= midnight {
			t.Fatalf("a %s begins at %s, a second too late", w, at)
		}
		for back := edge - 1; back > edge-30*3600; back -= 599 {
			if wall(back) >= midnight {
				t.Fatalf("a %s begins at %s, when %s was already", w, at, time.Unix(back, 0).In(zone))
			}
		}
	}
	days := (wall(end)/daySeconds - wall(start)/daySeconds)
	least, most := int64(1), int64(2) // two where the day between them never was
	switch w.Kind {
	case Week:
		least, most = 7, 7
	case Month:
		least, most = 28, 31
	}
	if days < least || days > most {
		t.Fatalf("the %s in %s from %s to %s has %d days", w, zone, time.Unix(start, 0).In(zone), time.Unix(end, 0).In(zone), days)
	}
}

func TestSpan_DoesNotAllocate(t *testing.T) {
	zone := loadZone(t, "America/St_Johns")
	for kind := Instant; kind <= Fixed; kind++ {
		w := Window{Kind: kind, Length: 90 * time.Minute}
		for _, at := range []time.Time{time.Unix(1_162_089_000, 0), time.Unix(4_000_000_000, 0)} {
			if n := testing.AllocsPerRun(100, func() { w.Span(at, zone, 5) }); n != 0 {
				t.Errorf("kind %d: %v allocations", kind, n)
			}
		}
	}
}

func BenchmarkSpan(b *testing.B) {
	zone, at := loadZone(b, "America/New_York"), time.Unix(1_750_000_000, 0)
	for _, w := range []Window{{Kind: Day}, {Kind: Week}, {Kind: Month}, fixed(30 * day)} {
		b.Run(w.String(), func(b *testing.B) {
			for b.Loop() {
				w.Span(at, zone, 5)
			}
		})
	}
}
