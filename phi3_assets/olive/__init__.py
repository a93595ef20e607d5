"""All that knows Microsoft Olive: running one pass, the data component, and Olive configurations in and out."""
