"""What the numbers of identities and cameras mean: Market-1501's conventions, kept for every data set."""

# A junk detection, an image nobody labelled, a camera or tracklet that is not known.
UNKNOWN = -1
# A real detection of nobody in the query set.
DISTRACTOR_PID = 0
