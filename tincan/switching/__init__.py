"""Where a frame goes, and whether it may. Pure.

frame        kinds of frames, and what never crosses
table        which MAC is behind which link, or here
policy       the decision for each frame, on its way out and in
bucket       the token bucket
storm        what the kernel is to drop while there is a storm
"""
